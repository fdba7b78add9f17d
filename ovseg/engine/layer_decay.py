"""Learning rates that shrink toward the input of a CLIP backbone (ELECTRA; BEiT's recipe for fine-tuning ViTs).

lr = base·rate^(L − l) for block l = 0 … L−1, l = −1 for embeddings, l = L for what follows the blocks and for the
rest of the model; no weight decay on norms, biases, position tables and class embeddings.
"""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ovseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from ovseg.segmentors.clip_backbone import CLIPBackbone

UNDECAYED = ("positional_embedding", "class_embedding", "contexts", "gamma", "log_scale")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """For any model that contains a ``CLIPBackbone``.

        optim_wrapper = dict(constructor="ovseg.LayerDecay", paramwise_cfg=dict(rate=0.75), optimizer=dict(…, lr=…))

    Args:
        optim_wrapper_cfg: with an ``optimizer`` that has a learning rate.
        paramwise_cfg: ``rate``, and what MMEngine's own constructor takes (``custom_keys`` with ``lr_mult`` …), which
            is applied first and multiplied.

    Raises:
        ValueError: no ``rate`` in (0, 1], no learning rate, or a model without a ``CLIPBackbone``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        paramwise_cfg = dict(paramwise_cfg or {})
        self.rate = paramwise_cfg.get("rate")
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        if not isinstance(self.rate, (int, float)) or not 0 < self.rate <= 1 or self.base_lr is None:
            raise ValueError(
                f"LayerDecay needs a rate in (0, 1] and a learning rate; got rate={self.rate!r}, lr={self.base_lr!r}. "
                "Write paramwise_cfg=dict(rate=0.75) and optimizer=dict(type='AdamW', lr=1e-4, …)."
            )

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = "", is_dcn_module=None):
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix == "":
            self._scale(params, module)

    def _scale(self, params: list[dict], model: nn.Module):
        """Adjust the parameter groups that MMEngine created, one per parameter."""
        backbones = {name: m for name, m in model.named_modules() if isinstance(m, CLIPBackbone)}
        if not backbones:
            raise ValueError(
                f"LayerDecay: {type(model).__name__} contains no CLIPBackbone. Use backbone=dict(type="
                "'ovseg.CLIPBackbone', …), or leave constructor out of optim_wrapper."
            )
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for group in params:
            (parameter,) = group["params"]
            name = names[id(parameter)]
            for prefix, backbone in backbones.items():
                inside = f"{prefix}." if prefix else ""
                if name.startswith(inside):
                    layer = backbone.layer_of(name.removeprefix(inside))
                    group["lr"] = group.get("lr", self.base_lr) * self.rate ** (backbone.depth - layer)
            if parameter.ndim <= 1 or name.endswith(UNDECAYED):
                group["weight_decay"] = 0.0
