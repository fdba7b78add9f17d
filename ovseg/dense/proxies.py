"""Proxies for ProxyCLIP: networks whose features show which positions belong together.

A proxy has ``taps``, the intermediate results of the CLIP tower that it needs (``Tower.advance``), and is called as
``proxy(tower, images, state)`` with images (B, 3, H, W) normalized for the tower and the input state of the last block;
it returns features (B, C', h', w') whose grid covers the image.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ovseg.compat.checkpoint import read_checkpoint
from ovseg.registry import PROXIES
from ovseg.threads import PerThread
from ovseg.towers import IMAGENET, TokenState, Tower

from .base import patches, to_grid


@PROXIES.register_module()
class TowerProxy(nn.Module):
    """The CLIP tower's own middle layers; requires no download.

    Args:
        tap: which tokens, ``block.I.PART`` as in ``Tower.advance``; the heads of ``k`` are concatenated.
    """

    def __init__(self, tap: str = "block.-3.k"):
        super().__init__()
        self.taps = (tap,)

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        tokens = state.taps[self.taps[0]]
        tokens = tokens.transpose(1, 2).flatten(2) if tokens.ndim == 4 else tokens
        return to_grid(patches(tokens, state.grid), state.grid)


@PROXIES.register_module()
class TimmProxy(nn.Module):
    """A network of timm: DINO ``vit_base_patch8_224.dino`` (the paper's), DINOv2
    ``vit_base_patch14_reg4_dinov2.lvd142m``, MAE ``vit_base_patch16_224.mae``, SAM ``samvit_base_patch16.sa1b``.

    Args:
        model: name of the model in timm.
        checkpoint: a file with its weights; by default timm downloads them.

    Raises:
        ValueError: timm does not know the name, or the weights are not available.
    """

    taps: tuple[str, ...] = ()
    model: Any  # of one of timm's many classes

    def __init__(self, model: str = "vit_base_patch8_224.dino", checkpoint: str | Path | None = None):
        super().__init__()
        import timm

        options: dict[str, Any] = {"dynamic_img_size": True} if model.startswith(("vit_", "deit")) else {}
        try:
            self.model = timm.create_model(model, pretrained=checkpoint is None, num_classes=0, **options)
        except Exception as error:  # timm raises many types; all of them mean that the weights are not available
            raise ValueError(
                f"timm cannot make the proxy {model!r} ({type(error).__name__}: {error}). Choose a model from "
                "timm.list_pretrained(); on a machine without network access, pass its file: "
                "proxy=dict(type='TimmProxy', model=…, checkpoint='model.safetensors')."
            ) from error
        if checkpoint is not None:
            state = read_checkpoint(checkpoint)
            missing = self.model.load_state_dict(state, strict=False).missing_keys
            if missing:
                raise ValueError(f"{checkpoint} is not a checkpoint of {model}: it lacks {', '.join(missing[:3])}, ….")
        self.eval().requires_grad_(False)

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        features = self.model.forward_features(tower.normalize(tower.denormalize(images), IMAGENET))
        return features if features.ndim == 4 else self._on_grid(features, images)

    def _on_grid(self, tokens: Tensor, images: Tensor) -> Tensor:
        patch = self.model.patch_embed.patch_size
        grid = images.shape[2] // patch[0], images.shape[3] // patch[1]
        return to_grid(tokens[:, self.model.num_prefix_tokens :], grid)


@PROXIES.register_module()
class TimmValues(TimmProxy):
    """The values of the last attention of a timm ViT, heads concatenated: CLIP-DINOiser's teacher.

    Args:
        model, checkpoint: see ``TimmProxy``.

    Raises:
        ValueError: as for ``TimmProxy``, or the last block has no joint projection to q, k and v.
    """

    def __init__(self, model: str = "vit_base_patch16_224.dino", checkpoint: str | Path | None = None):
        super().__init__(model, checkpoint)
        if not hasattr(getattr(getattr(self.model, "blocks", [None])[-1], "attn", None), "qkv"):
            raise ValueError(
                f"the values of {model} cannot be read: TimmValues needs a plain ViT of timm, such as "
                "vit_base_patch16_224.dino; TimmProxy reads the last features of others."
            )
        self._own = PerThread()  # .values: of the pass that this thread runs
        self.model.blocks[-1].attn.qkv.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs, out: Tensor):
        self._own.values = out.chunk(3, -1)[2]

    def forward(self, tower: Tower, images: Tensor, state: TokenState) -> Tensor:
        super().forward(tower, images, state)
        return self._on_grid(vars(self._own).pop("values"), images)
