"""CLIP-DINOiser: Teaching CLIP a few DINO tricks (Wysoczańska et al., ECCV 2024): two trained convolutions.

F   MaskCLIP's features;   Y = LN₂ output of block L−2, patches only
g = Conv3×3(Y) (edges replicated),   C = ĝᵀ ĝ,   entries below γ → 0
F'_p = Σ_q C_pq F_q / (Σ_q C_pq + 10⁻⁶)
background: Conv1×1(Ŷ) → logit b, foreground where sigmoid(b) > 0.5 (``ovseg.score.ForegroundScore``)
"""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.compat.checkpoint import read_checkpoint
from ovseg.registry import DENSE
from ovseg.towers import TokenState, Tower

from .base import patches, to_grid
from .features import DenseFeatures
from .maskclip import MaskCLIP


class Correlations(nn.Module):
    """The two trained convolutions, named as in the authors' checkpoint.

    Args:
        width: channels D of Y.
        channels: channels of g.
        kernel: side of the first convolution.
    """

    def __init__(self, width: int, channels: int = 256, kernel: int = 3):
        super().__init__()
        self.obj_proj = nn.Conv2d(width, channels, kernel, padding=kernel // 2, padding_mode="replicate")
        self.bkg_decoder = nn.Conv2d(width, 1, 1)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Correlations":
        """From a state dict that contains the four arrays under any prefix.

        Raises:
            ValueError: one of them is missing.
        """
        wanted = ("obj_proj.weight", "obj_proj.bias", "bkg_decoder.weight", "bkg_decoder.bias")
        tensors = {name: value for key, value in state.items() for name in wanted if key.endswith(name)}
        if len(tensors) < len(wanted):
            raise ValueError(
                f"this is not a CLIP-DINOiser checkpoint: missing {', '.join(n for n in wanted if n not in tensors)}."
            )
        channels, width, kernel, _ = tensors["obj_proj.weight"].shape
        module = cls(width, channels, kernel)
        module.load_state_dict({name: value.float() for name, value in tensors.items()})
        return module.eval().requires_grad_(False)

    def forward(self, y: Tensor) -> Tensor:
        """Raw correlations C (B, h·w, h·w) of Y (B, D, h, w)."""
        unit = F.normalize(self.obj_proj(y).flatten(2), dim=1)
        return unit.transpose(1, 2) @ unit

    def background(self, y: Tensor) -> Tensor:
        """Logits b (B, 1, h, w), positive on the foreground."""
        return self.bkg_decoder(F.normalize(y, dim=1))


def pool(features: Tensor, correlations: Tensor, gamma: float | None) -> Tensor:
    """F' (B, E, h, w) of F (B, E, h, w) and C (B, h·w, h·w); ``gamma`` 0 or None keeps every entry."""
    if gamma:
        correlations = correlations.masked_fill(correlations < gamma, 0)
    mixed = features.flatten(2) @ correlations.transpose(1, 2) / (correlations.sum(-1) + 1e-6)[:, None]
    return mixed.unflatten(2, features.shape[2:])


@DENSE.register_module()
class CLIPDINOiser(MaskCLIP):
    """MaskCLIP's features pooled by learned correlations; the foreground logit is ``extras["foreground"]``.

    Args:
        checkpoint: file with the two convolutions in the authors' format.
        gamma: γ, 0 for no threshold.
        correlations: the convolutions as a module, instead of ``checkpoint``.
        **options: see ``LastBlock``.

    Raises:
        ValueError: neither ``checkpoint`` nor ``correlations``; random convolutions would be meaningless.
    """

    positions = "exact"
    padding = "corner_black"
    taps = ("block.-3.ln_2",)
    requires = ("attention_blocks",)
    needs = ("checkpoint",)
    scorer = dict(type="ForegroundScore")
    name = "clip_dinoiser"
    paper = "CLIP-DINOiser, ECCV 2024"
    protocol = dict(short_side=448, window=448, stride=224, logit_scale=100)

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        gamma: float | None = 0.2,
        correlations: Correlations | None = None,
        **options,
    ):
        super().__init__(**options)
        if correlations is None:
            if checkpoint is None:
                raise ValueError(
                    "clip-dinoiser needs its two trained convolutions: dense=dict(type='CLIPDINOiser', "
                    "checkpoint='last.pt') with the file from the authors' repository (for LAION's ViT-B-16)."
                )
            correlations = Correlations.from_state(read_checkpoint(checkpoint))
        self.correlations, self.gamma = correlations, gamma

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        out = super().forward(tower, images)
        y = out.extras["y"]
        if y.shape[1] != self.correlations.bkg_decoder.in_channels:
            raise ValueError(
                f"these convolutions were trained for a tower of width {self.correlations.bkg_decoder.in_channels}, "
                f"this one has {y.shape[1]}; the authors' file belongs to ViT-B-16/laion2b_s34b_b88k."
            )
        out.features = pool(out.features, self.correlations(y), self.gamma)
        out.extras = {"foreground": self.correlations.background(y)}
        return out

    def extras(self, tower: Tower, state: TokenState) -> dict[str, Tensor]:
        return {"y": to_grid(patches(state.taps[self.taps[0]], state.grid), state.grid)}
