"""Layouts of weight files: whose names they have, and how they become the names that towers are built from.

==========================  ============================================================================================
OpenAI, open_clip           ``visual.…`` and the text side; the names that everything is brought to
ours                        the same; the rows of a token table that never trained are left out (``token_rows``), what a
                            method needs beside its tower lies under ``pipeline.``
EVA-CLIP, CLIPSelf          the image tower by the authors' names, the text side under ``text.``; the former becomes
                            ``visual.trunk.`` with timm's names, as open_clip has it
CAT-Seg                     the CLIP under ``sem_seg_head.predictor.clip_model.``, the in-projection W of attention
                            (3D × D) as three matrices, its bias as one; all other names are OpenAI's
RegionCLIP                  the image tower under ``backbone.`` and, in the files of its pretraining, the text tower
                            under ``lang_encoder.``, both in OpenAI's names; its teacher, its proposal network and its
                            box layers are left out here
==========================  ============================================================================================
"""

import open_clip
import torch
from torch import Tensor

EXTRAS = ("input_resolution", "context_length", "vocab_size")  # scalars inside OpenAI's files
BESIDE = "pipeline."  # what our own files hold beside a tower
CATSEG = "sem_seg_head.predictor.clip_model."
REGIONCLIP, REGIONCLIP_TEXT = "backbone.", "lang_encoder."
BESIDE_A_BACKBONE = ("context_decoder.", "text_encoder.", "decode_head.", "bbox_head.", "roi_head.", "neck.")
SPLIT = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
TRUNK = "visual.trunk."
EVA_NAMES = {  # the authors' → timm's
    ".attn.q_bias": ".attn.q_proj.bias",
    ".attn.v_bias": ".attn.v_proj.bias",
    ".attn.inner_attn_ln.": ".attn.norm.",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.w3.": ".mlp.fc2.",
    ".mlp.ffn_ln.": ".mlp.norm.",
}


def plain(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict]:
    """A file's tensors in the names that towers are built from, and what its layout says of them.

    The second value is empty, or has the keys of our own metadata, which it then replaces.  What lies beside a tower
    is left out.

    Raises:
        ValueError: a CAT-Seg or RegionCLIP of which parts are missing.
    """
    state, record = {key: value for key, value in state.items() if not key.startswith(BESIDE)}, {}
    if is_catseg(state):
        state = catseg_clip(state)
        record = {"quick_gelu": not is_laions(state)}
    elif is_regionclip(state):
        state, record = regionclip_clip(state), {"quick_gelu": True}
    if "token_rows" in state:
        state = whole_token_table(state)
    return state, record


def canonical(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict]:
    """``plain`` weights in the names of open_clip's modules, and the ``vision_cfg`` they record."""
    state = {key: value for key, value in state.items() if key not in EXTRAS}
    if not is_eva(state):
        return state, {}
    rotations = stored_rotations(state)
    return timm_names(state), {"eva": rotations} if rotations else {}


def activation(state: dict[str, Tensor]) -> bool | None:
    """Whether plain weights want QuickGELU as far as their layout tells; None where it does not."""
    if "visual.conv1.weight" not in state:  # EVA-02's layout, or not a CLIP, which building it explains
        return False
    return True if "input_resolution" in state else None  # only OpenAI's own files carry this


def is_laions(state: dict[str, Tensor]) -> bool:
    """Whether a ViT is as wide as those that OpenAI never made: H/14, g/14, G/14 and bigG/14 of OpenCLIP, with GELU."""
    return "visual.conv1.weight" in state and len(state["visual.conv1.weight"]) > 1024


def is_half(state: dict[str, Tensor]) -> bool:
    """Whether the image tower is stored in the precision that OpenAI publishes."""
    return state["visual.conv1.weight"].dtype == torch.float16


def has_text(state: dict[str, Tensor]) -> bool:
    """Whether there is a text tower beside the image tower."""
    return "text_projection" in state


def visual_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of a whole CLIP, without the prefix ``visual.``."""
    return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}


# --- ours -------------------------------------------------------------------------------------------------------------


def whole_token_table(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the stored rows of a pruned token table back at their ids; ids that were never trained become zero rows."""
    state = dict(state)
    rows, stored = state.pop("token_rows"), state.get("token_embedding.weight")
    size = open_clip.tokenizer.SimpleTokenizer().vocab_size
    right = stored is not None and stored.ndim == 2 and rows.shape == stored.shape[:1] and not rows.is_floating_point()
    if not right or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < size):
        raise ValueError(f"token_rows of these weights are not one id from 0 to {size - 1} for each row of the table.")
    rows = rows.long()
    table = stored.new_zeros(size, stored.shape[1])
    table[rows] = stored
    return state | {"token_embedding.weight": table}


def pruned_token_table(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the rows of tokens that no training saw, which are zero; the inverse of ``whole_token_table``."""
    table = state.get("token_embedding.weight")
    rows = None if table is None else table.any(1).nonzero()[:, 0]
    if rows is None or len(rows) == len(table):
        return state
    return state | {"token_embedding.weight": table[rows], "token_rows": rows.int()}


# --- EVA-02 -----------------------------------------------------------------------------------------------------------


def is_eva(state: dict[str, Tensor]) -> bool:
    """Whether a whole CLIP's names are those of an EVA-02 image tower, the authors' or timm's."""
    return any(f"{prefix}blocks.0.attn.k_proj.weight" in state for prefix in (TRUNK, "visual."))


def has_authors_names(state: dict[str, Tensor]) -> bool:
    """Whether an EVA-02 image tower has its authors' names instead of timm's, which open_clip's own model has."""
    return "visual.blocks.0.attn.k_proj.weight" in state


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EVA-CLIP's names (also CLIPSelf's files), or open_clip's for its EVA towers → ``visual.trunk.`` + timm's names.

    The text side's prefix ``text.`` and the rotations' buffers, which are rebuilt for every grid, are left out.
    """
    named = {}
    for key, value in state.items():
        if ".rope." in f".{key}":
            continue
        if key.startswith("visual."):
            key = TRUNK + key.removeprefix(TRUNK).removeprefix("visual.")
            for theirs, timms in EVA_NAMES.items():
                key = key.replace(theirs, timms)
        named[key.removeprefix("text.")] = value
    return named


def stored_rotations(state: dict[str, Tensor]) -> dict:
    """``heads`` and ``reference`` as the buffers of the authors' files tell them; empty without such buffers."""
    for key in ("visual.rope.freqs_cos", "visual.blocks.0.attn.rope.freqs_cos"):
        if key in state:
            cos, sin = state[key].float(), state[key.replace("freqs_cos", "freqs_sin")].float()
            side, width = round(len(cos) ** 0.5), cos.shape[1]
            angle = torch.atan2(sin[1, width // 2], cos[1, width // 2])  # p / n of the second patch of the first row
            heads = state["visual.blocks.0.attn.k_proj.weight"].shape[0] // width
            return {"heads": heads, "reference": round(float(angle) * side)}
    return {}


# --- the releases of methods ------------------------------------------------------------------------------------------


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
