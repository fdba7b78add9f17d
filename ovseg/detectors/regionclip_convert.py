"""Released files of RegionCLIP (detectron2's names) as checkpoints of ``detectors.RegionCLIP`` and ``FrozenRPN``.

``backbone.*``                         CLIP's ResNet in OpenAI's names      → ``tower.visual.*``
``lang_encoder.*``                     its text tower                       → ``tower.clip.*``
``roi_heads.box_predictor.bbox_pred``  box deltas                           → ``roi_head.bbox_head.fc_reg``
``roi_heads.mask_head.*``              deconvolution and predictor          → ``roi_head.mask_head.*``
``offline_backbone.*``, ``offline_proposal_generator.*``                    → a detector of MMDetection, ``rpn``
omitted: text tables (names are encoded again), ``teacher_backbone.*``, anchors, training statistics

The names inside detectron2's own ResNet, FPN and RPN are [recalled].  Their anchors run over sizes first: a
configuration of MMDetection for them has ``anchor_generator=dict(scale_major=False, …)``, its ResNet ``style="caffe"``.
"""

import re

from torch import Tensor

from ovseg.towers.formats import REGIONCLIP, REGIONCLIP_TEXT, regionclip_visual

OFFLINE = ("offline_backbone.", "offline_proposal_generator.")
HEADS = {
    "roi_heads.box_predictor.bbox_pred.": "roi_head.bbox_head.fc_reg.",
    "roi_heads.mask_head.deconv.": "roi_head.mask_head.upsample.",
    "roi_heads.mask_head.predictor.": "roi_head.mask_head.conv_logits.",
}
RULES = (  # applied one after the other
    (r"^(?:bottom_up\.)?stem\.conv1\.", "backbone.conv1."),
    (r"^(?:bottom_up\.)?res(\d)\.", lambda m: f"backbone.layer{int(m[1]) - 1}."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"^fpn_lateral(\d)\.", lambda m: f"neck.lateral_convs.{int(m[1]) - 2}.conv."),
    (r"^fpn_output(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) - 2}.conv."),
    (r"^(neck\..*)\.conv\.norm\.", r"\1.bn."),
    (r"^rpn_head\.conv\.conv(\d)\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"^rpn_head\.conv\.", "rpn_head.rpn_conv."),
    (r"^rpn_head\.objectness_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn_head\.anchor_deltas\.", "rpn_head.rpn_reg."),
)


def detector_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a RegionCLIP file that ``detectors.RegionCLIP`` uses, under its names.

    Raises:
        ValueError: see ``regionclip_visual``.
    """
    regionclip_visual(state)
    own = {
        f"tower.visual.{name.removeprefix(REGIONCLIP)}": v for name, v in state.items() if name.startswith(REGIONCLIP)
    }
    own |= {f"tower.clip.visual.{name.removeprefix('tower.visual.')}": value for name, value in own.items()}
    text = {name.removeprefix(REGIONCLIP_TEXT): v for name, v in state.items() if name.startswith(REGIONCLIP_TEXT)}
    own |= {f"tower.clip.{name}": value for name, value in text.items()}
    for old, new in HEADS.items():
        own |= {name.replace(old, new): value for name, value in state.items() if name.startswith(old)}
    return own


def rpn_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The proposal network of a RegionCLIP file, or of a separate detectron2 file, under MMDetection's names.

    Raises:
        ValueError: no such network, or an unknown name.
    """
    inside = [name for name in state if name.startswith(OFFLINE)]
    if inside:
        own = {name.partition(".")[2]: state[name] for name in inside}
    else:
        own = {
            name.removeprefix("backbone.").removeprefix("proposal_generator."): value
            for name, value in state.items()
            if name.startswith(("backbone.", "proposal_generator."))
        }
    own = {name: value for name, value in own.items() if "anchor_generator" not in name}
    if not any(name.startswith("rpn_head.") for name in own):
        raise ValueError(
            f"there is no proposal network in this file: expected offline_proposal_generator.rpn_head.… or "
            f"proposal_generator.rpn_head.…, found {', '.join(list(state)[:3])}, …. Give the file of the RPN, such as "
            "rpn_lvis_866.pth."
        )
    return {_renamed(name): value for name, value in own.items()}


def _renamed(name: str) -> str:
    new = name
    for pattern, becomes in RULES:
        new = re.sub(pattern, becomes, new)
    if not new.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer", "neck.", "rpn_head.rpn_")):
        raise ValueError(
            f"{name!r} is not part of a ResNet with RPN that this converter knows (ResNet-50 or -101, C4 or FPN). "
            "Convert another network in detectron2, to the names of an RPN of MMDetection."
        )
    return new
