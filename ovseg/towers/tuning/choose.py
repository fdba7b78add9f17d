"""Presets that choose among the parameters a tower has."""

from collections.abc import Sequence

from torch import Tensor, nn

from ovseg.registry import TUNING

from .base import Tuning


@TUNING.register_module()
class Attention(Tuning):
    """All weights and biases of attention, also of a ResNet's attention pool; of EVA-02 the norm inside too."""

    part = "attention"

    def tune(self, tower, parts):
        for attention in parts.attention:
            for module in attention.modules:
                yield from module.parameters()


@TUNING.register_module()
class Blocks(Tuning):
    """All weights of the blocks; stem, positions, the last normalization, an attention pool and the projection stay."""

    part = "blocks"

    def tune(self, tower, parts):
        for block in parts.blocks:
            yield from block.parameters()


@TUNING.register_module()
class Positions(Tuning):
    """Position tables."""

    part = "positions"

    def tune(self, tower, parts):
        yield from (weight.tensor for weight in parts.positions)


@TUNING.register_module()
class Norms(Tuning):
    """Scale and shift of all normalizations: LayerNorms, of a ResNet BatchNorms, whose statistics stay."""

    part = "norms"

    def tune(self, tower, parts):
        for norm in parts.norms:
            yield from norm.parameters()


@TUNING.register_module()
class Everything(Tuning):
    """All parameters of a side."""

    def tune(self, tower, parts):
        yield from parts.parameters()


@TUNING.register_module()
class LastProjection(Tuning):
    """The projection into the joint space, with the penalty λ‖W − W₀‖² on the loss.

    Args:
        towers: sides.
        weight: λ; ProLIP takes 1/n or 1/n² for n examples per class [recalled].
    """

    part = "projection"

    def __init__(self, towers: Sequence[str] = ("visual",), weight: float = 0.0):
        super().__init__(towers)
        self.weight = weight
        self._start: list[tuple[nn.Parameter, Tensor]] = []

    def tune(self, tower, parts):
        for weight in parts.projection:
            if isinstance(weight.tensor, nn.Parameter):
                self._start.append((weight.tensor, weight.tensor.detach().clone()))
                yield weight.tensor

    def penalty(self):
        if not self.weight:
            return None
        return self.weight * sum((p - start.to(p.device)).square().sum() for p, start in self._start)
