"""What the families inside open_clip's ``TimmModel`` share: their config is recorded, since shapes do not tell it."""

from open_clip.timm_model import TimmModel
from torch import nn

from .architecture import open_clip_model
from .family import TowerFamily
from .parts import weight_and_bias

TRUNK = "visual.trunk."
EVA_02 = f"{TRUNK}blocks.0.attn.k_proj.weight"
ASK = (
    "the weights are those of a network of timm, whose name nothing here tells. Give the folder with their "
    "open_clip_config.json, or name the architecture: arch=… (command line: --arch), one of open_clip.list_models()."
)


class TimmFamily(TowerFamily):
    """Base of families whose image module is a ``TimmModel``: ``visual.trunk`` and ``visual.head``."""

    @classmethod
    def trunk_of(cls, visual: nn.Module) -> nn.Module | None:
        """The timm network of an image module; None for a module of another kind."""
        return visual.trunk if isinstance(visual, TimmModel) else None

    @classmethod
    def vision_config(cls, state, config):
        return dict(config)

    @classmethod
    def attention_config(cls, state, heads, eps):
        return {}

    @classmethod
    def from_state(cls, state, config, quick_gelu, embed_dim=None):
        if not config.get("timm_model_name"):
            raise ValueError(ASK)
        whole = {"embed_dim": embed_dim, "vision_cfg": config, "text_cfg": {"layers": 1, "width": 64, "vocab_size": 1}}
        return open_clip_model(whole).visual

    def recorded_config(self):
        known = dict((self.card.config or {}).get("vision_cfg", {}))
        name = (getattr(self.visual.trunk, "pretrained_cfg", None) or {}).get("architecture")
        return known or {"timm_model_name": name}

    def linear_head(self) -> tuple:
        """Tensors of the projection into the joint space."""
        heads = (*self.visual.head.modules(), *self.visual.trunk.modules())
        linear = [layer for layer in heads if isinstance(layer, (nn.Linear, nn.Conv2d))]
        own = [layer for layer in self.visual.head.modules() if isinstance(layer, nn.Linear)]
        return weight_and_bias(own[-1] if own else linear[-1])
