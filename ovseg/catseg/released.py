"""The names of CAT-Seg's parts in the authors' checkpoints and in those of ``ovseg train``.

==========================================  ===========================================================================
``sem_seg_head.predictor.clip_model.*``     the tuned CLIP (``ovseg.towers.formats``); ``load_tower`` reads it too
``sem_seg_head.predictor.transformer.*``    the aggregation: ``transformer.*`` of ``CostScore``
``upsample1.*``, ``upsample2.*``            the two deconvolutions of the guidance
``pipeline.scorer.*``                       all of ``CostScore``, in ours; ovseg export adds the tower
==========================================  ===========================================================================

The layout follows the authors' code; their files were not available for testing.
"""

from pathlib import Path

from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint_with_meta
from ovseg.compat.untrusted import mapping, optional, parse_json, text, whole
from ovseg.towers.formats import CATSEG

PREFIXES = {
    "sem_seg_head.predictor.transformer.": "transformer.",
    "upsample1.": "upsample1.",
    "upsample2.": "upsample2.",
}
AGGREGATION = mapping(
    dict(
        heads=whole(1, 64),
        window=whole(1, 64),
        attention=text(10, "linear", "full"),
        pad_len=whole(0, 4096),
        top_k=optional(whole(1, 100_000)),
    )
)
OURS = "pipeline.scorer."
ELSEWHERE = (CATSEG, "pipeline.", "pixel_", "clip_pixel_")  # a tower, and statistics that travel with its weights


def head_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names and tensors of ``CostScore`` in a checkpoint.

    Raises:
        ValueError: none of them, or names that do not belong to CAT-Seg.
    """
    head, unknown = {}, []
    if any(name.startswith(OURS) for name in state):
        return {name.removeprefix(OURS): tensor.float() for name, tensor in state.items() if name.startswith(OURS)}
    for name, tensor in state.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is not None:
            head[PREFIXES[prefix] + name.removeprefix(prefix)] = tensor.float()
        elif not name.startswith(ELSEWHERE):
            unknown.append(name)
    if unknown or not head:
        raise ValueError(
            f"this is not a CAT-Seg checkpoint: {len(head)} of its {len(state)} tensors belong to the aggregation; "
            f"unknown names: {', '.join(unknown[:3]) or 'none'}{', …' if len(unknown) > 3 else ''}. Expected names "
            "such as sem_seg_head.predictor.transformer.conv1.weight and upsample1.weight (the CVPR 2024 version, not "
            "that of mmsegmentation's projects/CAT-Seg)."
        )
    return head


def read_head(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """``head_state`` of a file, and the settings of ``CostAggregation`` it records (ours, made by ovseg export).

    Raises:
        FileNotFoundError: no such file.
        ValueError: as ``head_state``, with the file's name.
    """
    try:
        state, notes = read_checkpoint_with_meta(path)
        aggregation = parse_json(notes.get("aggregation", "{}"), "aggregation")
        return head_state(state), AGGREGATION(aggregation, "aggregation")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
