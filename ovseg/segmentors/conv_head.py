"""PixelCLIP's head (NeurIPS 2024): from the cost map of one class to its mask logits at four times the resolution.

    Conv3×3 1→64, up ×2, double conv, up ×2 to 32 channels, double conv, Conv3×3 32→1

It is used in training only; every class is processed separately, so their number is arbitrary.
"""

from torch import Tensor, nn

from ovseg.catseg.decoder import DoubleConv


class ConvHead(nn.Module):
    """The head, with parameters named as in the authors' checkpoint (118,145 parameters with 64 and 32 channels).

    Args:
        channels: channels at 1× and 2×, and at 4× the resolution of the cost map; multiples of 16.
    """

    def __init__(self, channels: tuple[int, int] = (64, 32)):
        super().__init__()
        wide, narrow = channels
        self.conv0 = nn.Conv2d(1, wide, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(wide, wide, 2, stride=2)
        self.conv1 = DoubleConv(wide, wide)
        self.up2 = nn.ConvTranspose2d(wide, narrow, 2, stride=2)
        self.conv2 = DoubleConv(narrow, narrow)
        self.proj = nn.Conv2d(narrow, 1, 3, padding=1)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "ConvHead":
        """From a state dict that contains the head under the prefix ``head.``, among others.

        Raises:
            ValueError: it contains no such head.
        """
        own = {key[5:]: value.float() for key, value in state.items() if key.startswith("head.")}
        if not {"conv0.weight", "conv2.double_conv.0.weight"} <= own.keys():
            raise ValueError(
                f"no head of PixelCLIP is among {', '.join(list(state)[:4])}, …: expected head.conv0.weight."
            )
        module = cls((own["conv0.weight"].shape[0], own["conv2.double_conv.0.weight"].shape[0]))
        module.load_state_dict(own)
        return module

    def forward(self, cost: Tensor) -> Tensor:
        """Logits (B, K, 4h, 4w) of a cost volume (B, K, h, w)."""
        x = self.conv0(cost.flatten(0, 1)[:, None])
        x = self.conv1(self.up1(x))
        x = self.conv2(self.up2(x))
        return self.proj(x)[:, 0].unflatten(0, cost.shape[:2])
