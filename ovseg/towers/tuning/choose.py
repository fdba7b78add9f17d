"""Presets that choose among the parameters a tower has."""

from collections.abc import Sequence

from open_clip.transformer import ResidualAttentionBlock
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from ovseg.registry import TUNING

from .base import Tuning, side


@TUNING.register_module()
class Attention(Tuning):
    """All weights and biases of attention, also of a ResNet's attention pool."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.MultiheadAttention):
                yield from module.parameters()
        if name == "visual" and hasattr(tower.visual, "attnpool"):
            pool = tower.visual.attnpool
            yield from (p for key, p in pool.named_parameters() if key != "positional_embedding")


@TUNING.register_module()
class Blocks(Tuning):
    """All weights of the blocks; patches, positions, the last normalisation and the projection stay."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, (ResidualAttentionBlock, EvaBlock)):
                yield from module.parameters()


@TUNING.register_module()
class Positions(Tuning):
    """Position tables."""

    def tune(self, tower, name):
        for module in (*side(tower, name).values(), *([tower.clip] if name == "text" else [])):
            if "positional_embedding" in module._parameters:
                yield module.positional_embedding


@TUNING.register_module()
class Norms(Tuning):
    """Scale and shift of all LayerNorms."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.LayerNorm):
                yield from module.parameters()


@TUNING.register_module()
class Everything(Tuning):
    """All parameters of a side."""

    def tune(self, tower, name):
        own = list(tower.visual.parameters())
        if name == "visual":
            yield from own
        else:
            side(tower, name)
            known = {id(p) for p in own}
            yield from (p for p in tower.clip.parameters() if id(p) not in known)


@TUNING.register_module()
class LastProjection(Tuning):
    """The projection into the joint space, with the penalty λ‖W − W₀‖² on the loss.

    Args:
        towers: sides.
        weight: λ; ProLIP takes 1/n or 1/n² for n examples per class [recalled].
    """

    def __init__(self, towers: Sequence[str] = ("visual",), weight: float = 0.0):
        super().__init__(towers)
        self.weight = weight
        self._start: list[tuple[nn.Parameter, Tensor]] = []

    def tune(self, tower, name):
        owner, key = (tower.visual, "proj") if name == "visual" else (tower.clip, "text_projection")
        if name == "visual" and hasattr(tower.visual, "attnpool"):
            owner, key = tower.visual.attnpool.c_proj, "weight"
        projection = getattr(owner, key, None)
        found = list(projection.parameters()) if isinstance(projection, nn.Module) else [projection]
        for parameter in found:
            if isinstance(parameter, nn.Parameter):
                self._start.append((parameter, parameter.detach().clone()))
                yield parameter

    def penalty(self):
        if not self.weight:
            return None
        return self.weight * sum((p - start.to(p.device)).square().sum() for p, start in self._start)
