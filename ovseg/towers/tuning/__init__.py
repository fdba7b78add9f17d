"""Which parameters of a tower train: presets that can be combined and used with any method.

======================  ===========================================================================  ==================
preset                  trains                                                                       source
======================  ===========================================================================  ==================
``QV``                  W_q and W_v of all attention                                                 CAT-Seg, CVPR 2024
``Attention``           all weights and biases of attention                                          PixelCLIP, 2024
``Blocks``              all weights of the blocks, nothing before and behind them                    CLIPSelf, ICLR 2024
``Positions``           position tables                                                              CAT-Seg (paper)
``Norms``               scale and shift of all normalizations
``LastProjection``      the projection into the joint space                                          ProLIP [recalled]
``LoRA``                W + (α/r)·B A with A (r, d_in), B (d_out, r), B = 0 at first                 Hu et al., 2022
``SingularValues``      only s of W = U diag(s) Vᵀ                                                   CLIP-SVD [abstract]
``Prompt``              M vectors before every prompt of the text tower                              CoOp, IJCV 2022
``VisualPrompt``        tokens added to the input of each block but the last and dropped after it    VPT, ECCV 2022
``Everything``          all parameters
======================  ===========================================================================  ==================

They choose among the parts that a tower's family names (``towers.parts``); docs/training.md has the table of what each
means for each family, and what is refused.

A tower is frozen until a preset is applied.  Presets that replace a weight do it by a parametrization
(``torch.nn.utils.parametrize``), so every reader of the weight sees the tuned one; ``plain_state``
gives it as a plain weight.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ovseg.registry import TUNING
from ovseg.towers.base import Tower

from .base import Tuning
from .choose import Attention, Blocks, Everything, LastProjection, Norms, Positions
from .prompts import Prompt, VisualPrompt
from .reparametrize import QV, LoRA, SingularValues

__all__ = [
    "QV",
    "Attention",
    "Blocks",
    "Everything",
    "LastProjection",
    "LoRA",
    "Norms",
    "Positions",
    "Prompt",
    "SingularValues",
    "Tuning",
    "VisualPrompt",
    "apply",
    "plain_state",
    "trains",
]


def apply(tower: Tower, presets: Sequence[dict | Tuning]) -> list[Tuning]:
    """Apply presets, or their configs, to a tower in the order given; the presets.

    Raises:
        ValueError: see ``Tuning``.
    """
    built = [TUNING.build(dict(preset)) if isinstance(preset, dict) else preset for preset in presets]
    for preset in built:
        preset.apply(tower)
    return built


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """A state dict with the names of an untuned module: parametrized weights by their values."""
    state = module.state_dict()
    for place, part in module.named_modules():
        for key in part.parametrizations if parametrize.is_parametrized(part) else ():
            name = f"{place}.{key}" if place else key
            inside = f"{name.removesuffix(key)}parametrizations.{key}."
            state = {other: value for other, value in state.items() if not other.startswith(inside)}
            state[name] = getattr(part, key).detach()
    return state


def trains(tower: Tower, name: str) -> bool:
    """Whether anything of one side of a tower trains."""
    visual = {id(p) for p in tower.visual.parameters()}
    if name == "visual":
        return any(p.requires_grad for p in tower.visual.parameters())
    return tower.clip is not None and any(p.requires_grad for p in tower.clip.parameters() if id(p) not in visual)
