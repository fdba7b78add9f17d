"""Distributed evaluation of a model without trainable parameters."""

from torch import nn

from ovseg.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class FrozenWrapper(nn.Module):
    """Replaces MMEngine's ``DistributedDataParallel``, which rejects models without trainable parameters.

    Args:
        module: the model; each process has its own copy, without communication.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def test_step(self, data):
        return self.module.test_step(data)

    def val_step(self, data):
        return self.module.val_step(data)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)
