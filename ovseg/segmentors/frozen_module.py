"""A frozen module of a model, such as a teacher, that is neither trained nor stored with it."""

from torch import nn


class FrozenModule(nn.Module):
    """Holds a module in evaluation mode: it moves between devices with its owner, but is not part of its parameters,
    state dict or training mode.

    Args:
        module: the wrapped module; attribute access falls through to it.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._held = [module.eval().requires_grad_(False)]  # in a list, so that it is no submodule

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_held"][0], name)

    def _apply(self, fn, *args, **kwargs):
        self._held[0]._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def forward(self, *inputs, **options):
        return self._held[0](*inputs, **options)
