"""Names of released files that hold a tuned CLIP among other parts.

CAT-Seg keeps the in-projection W of attention (3D × D) as three matrices, its bias as one, and puts the CLIP under
``sem_seg_head.predictor.clip_model.``; all other names are OpenAI's.

RegionCLIP has the image tower under ``backbone.`` and, in the files of its pre-training, the text tower under
``lang_encoder.``, both in OpenAI's names; its teacher, its proposal network and its box layers are left out here.
"""

import torch
from torch import Tensor

BESIDE = "pipeline."  # what our own files hold beside a tower
CATSEG = "sem_seg_head.predictor.clip_model."
REGIONCLIP, REGIONCLIP_TEXT = "backbone.", "lang_encoder."
BESIDE_A_BACKBONE = ("context_decoder.", "text_encoder.", "decode_head.", "bbox_head.", "roi_head.", "neck.")
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


def is_regionclip(state: dict[str, Tensor]) -> bool:
    """Whether these are the names of a RegionCLIP: CLIP's attention pool below a detectron2 backbone."""
    other = any(name.startswith(BESIDE_A_BACKBONE) for name in state)
    return f"{REGIONCLIP}attnpool.positional_embedding" in state and not other


def regionclip_visual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of a RegionCLIP in OpenAI's names, without ``visual.``.

    Raises:
        ValueError: a backbone without CLIP's stem, last stage or attention pool.
    """
    own = {name.removeprefix(REGIONCLIP): tensor for name, tensor in state.items() if name.startswith(REGIONCLIP)}
    wanted = ("conv3.weight", "layer4.0.conv1.weight", "attnpool.positional_embedding", "attnpool.c_proj.weight")
    absent = [name for name in wanted if name not in own]
    if absent:
        raise ValueError(
            f"this is not a whole RegionCLIP: {', '.join(REGIONCLIP + name for name in absent)} is missing. Give a "
            "file with the recognition branch, such as regionclip_pretrained-cc_rn50.pth; a proposal network has none."
        )
    return own


def regionclip_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The CLIP of a RegionCLIP in OpenAI's names; without text where the file holds none.

    Raises:
        ValueError: see ``regionclip_visual``.
    """
    clip = {f"visual.{name}": tensor for name, tensor in regionclip_visual(state).items()}
    clip |= {n.removeprefix(REGIONCLIP_TEXT): tensor for n, tensor in state.items() if n.startswith(REGIONCLIP_TEXT)}
    if "text_projection" in clip:
        clip.setdefault("logit_scale", torch.tensor(100.0).log())
    return clip
