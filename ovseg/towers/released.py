"""Names of released files that hold a tuned CLIP among other parts.

CAT-Seg keeps the in-projection W of attention (3D × D) as three matrices, its bias as one, and puts the CLIP under
``sem_seg_head.predictor.clip_model.``; all other names are OpenAI's.
"""

import torch
from torch import Tensor

BESIDE = "pipeline."  # what our own files hold beside a tower
CATSEG = "sem_seg_head.predictor.clip_model."
SPLIT = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def is_catseg(state: dict[str, Tensor]) -> bool:
    return any(name.startswith(CATSEG) for name in state)


def catseg_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP of a CAT-Seg checkpoint in OpenAI's names.

    Raises:
        ValueError: attention with only some of its three matrices.
    """
    own = {name.removeprefix(CATSEG): tensor for name, tensor in state.items() if name.startswith(CATSEG)}
    clip = {name: tensor for name, tensor in own.items() if not name.endswith(SPLIT)}
    for place in sorted({name.rpartition(".")[0] for name in own if name.endswith(SPLIT)}):
        matrices = [own.get(f"{place}.{part}") for part in SPLIT]
        if any(matrix is None for matrix in matrices):
            absent = ", ".join(part for part, matrix in zip(SPLIT, matrices, strict=True) if matrix is None)
            raise ValueError(f"this CAT-Seg checkpoint is not whole: {CATSEG}{place} lacks {absent}.")
        clip[f"{place}.in_proj_weight"] = torch.cat(matrices)
    return clip
