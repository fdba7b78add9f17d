"""Second opinions for ProxyCLIP: networks whose features say which places belong together.

A proxy has ``taps``, what it wants to see of the CLIP tower (``Tower.advance``), and is called as
``proxy(tower, images, state)`` with images (B, 3, H, W) normalised as the tower wants them and the state that enters
the last block; it returns features (B, C', h', w') whose grid covers the picture.
"""

from pathlib import Path

from torch import Tensor, nn

from ovseg.compat.checkpoint import read_checkpoint
from ovseg.registry import PROXIES
from ovseg.towers import IMAGENET, TokenState, Tower

from .base import to_grid


@PROXIES.register_module()
class TowerProxy(nn.Module):
    """The CLIP tower's own middle layers: nothing to download.

    Args:
        tap: which tokens, ``block.I.PART`` as in ``Tower.advance``; ``k`` of a block is taken over all heads.
    """

    def __init__(self, tap: str = "block.-3.k"):
        super().__init__()
        self.taps = (tap,)

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        tokens = state.taps[self.taps[0]]
        tokens = tokens.transpose(1, 2).flatten(2) if tokens.ndim == 4 else tokens
        return to_grid(tokens[:, 1:], state.grid)


@PROXIES.register_module()
class TimmProxy(nn.Module):
    """A network of timm: DINO ``vit_base_patch8_224.dino`` (the paper's), DINOv2
    ``vit_base_patch14_reg4_dinov2.lvd142m``, MAE ``vit_base_patch16_224.mae``, SAM ``samvit_base_patch16.sa1b``.

    Args:
        model: timm's name.
        checkpoint: a file with its weights; without one timm fetches them.

    Raises:
        ValueError: timm does not know the name, or the weights can be neither found nor fetched.
    """

    taps = ()

    def __init__(self, model: str = "vit_base_patch8_224.dino", checkpoint: str | Path | None = None):
        super().__init__()
        import timm

        options = {"dynamic_img_size": True} if model.startswith(("vit_", "deit")) else {}
        try:
            self.model = timm.create_model(model, pretrained=checkpoint is None, num_classes=0, **options)
        except Exception as error:  # timm raises many kinds; all of them mean that these weights are not to be had
            raise ValueError(
                f"timm cannot make the proxy {model!r} ({type(error).__name__}: {error}). Name a model that "
                "timm.list_pretrained() lists; on a machine without network give its file: "
                "proxy=dict(type='TimmProxy', model=…, checkpoint='model.safetensors')."
            ) from error
        if checkpoint is not None:
            state = read_checkpoint(checkpoint)
            missing = self.model.load_state_dict(state, strict=False).missing_keys
            if missing:
                raise ValueError(f"{checkpoint} is not a checkpoint of {model}: it lacks {', '.join(missing[:3])}, ….")
        self.eval().requires_grad_(False)

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        features = self.model.forward_features(tower.normalise(tower.denormalise(images), IMAGENET))
        return features if features.ndim == 4 else self._on_grid(features, images)

    def _on_grid(self, tokens: Tensor, images: Tensor) -> Tensor:
        patch = self.model.patch_embed.patch_size
        grid = images.shape[2] // patch[0], images.shape[3] // patch[1]
        return to_grid(tokens[:, self.model.num_prefix_tokens :], grid)


@PROXIES.register_module()
class TimmValues(TimmProxy):
    """The values of the last attention of a ViT of timm, all heads side by side: CLIP-DINOiser's teacher.

    Args:
        model, checkpoint: see ``TimmProxy``.

    Raises:
        ValueError: also a network whose last block has no joint projection to q, k and v.
    """

    def __init__(self, model: str = "vit_base_patch16_224.dino", checkpoint: str | Path | None = None):
        super().__init__(model, checkpoint)
        if not hasattr(getattr(getattr(self.model, "blocks", [None])[-1], "attn", None), "qkv"):
            raise ValueError(
                f"the values of {model} cannot be read: TimmValues needs a plain ViT of timm, such as "
                "vit_base_patch16_224.dino; TimmProxy reads the last features of others."
            )

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        seen = []
        projection = self.model.blocks[-1].attn.qkv
        handle = projection.register_forward_hook(lambda module, inputs, out: seen.append(out.chunk(3, -1)[2]))
        try:
            super().forward(tower, images, state)
        finally:
            handle.remove()
        return self._on_grid(seen[0], images)
