"""A moving average of the trained parameters: θ' ← α θ' + (1 − α) θ, once per step (mean teacher; MoCo; PixelCLIP)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Momentum(nn.Module):
    """Moving averages of a module's trained parameters, as buffers so that checkpoints contain them.

    Frozen parameters are the same in both, so only trained ones are stored.

    Args:
        module: the module.
        decay: α in [0, 1].
        prefix: only parameters whose name starts with it.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, prefix: str = ""):
        super().__init__()
        self.decay, self.names = decay, {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and name.startswith(prefix):
                key = self.names[name] = name.replace(".", "/")  # names of buffers hold no dots
                self.register_buffer(key, parameter.detach().clone())

    def values(self) -> dict[str, Tensor]:
        """Averaged values by parameter name."""
        return {name: getattr(self, key) for name, key in self.names.items()}

    @torch.no_grad()
    def update(self, module: nn.Module):
        """One step toward the module's current values."""
        parameters = dict(module.named_parameters())
        for name, slow in self.values().items():
            slow.lerp_(parameters[name].to(slow), 1 - self.decay)

    @torch.no_grad()
    def evaluate(self, module: nn.Module, function: Callable, *inputs):
        """``function(module, *inputs)`` with the averaged values in place of the module's own."""
        values = {f"module.{name}": slow for name, slow in self.values().items()}
        # a tower holds its image side twice, and tied weights would be put back in the wrong order
        return functional_call(_Call(module, function), values, inputs, tie_weights=False)


class _Call(nn.Module):
    def __init__(self, module: nn.Module, function: Callable):
        super().__init__()
        self.module, self.function = module, [function]  # in a list: a module there shall not be part of this one

    def forward(self, *inputs):
        return self.function[0](self.module, *inputs)
