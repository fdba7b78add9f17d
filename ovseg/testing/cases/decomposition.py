"""Additive decomposition of the image embedding."""

from ovseg.dense.decomposition import ClipPRS, decompose
from ovseg.score import CenteredScore

from .common import case, words


@case
def clip_prs(golden):
    tower, image, text = golden.tower(), golden.input("image"), words(golden)
    parts, out, scorer = decompose(tower, image), ClipPRS()(tower, image), CenteredScore()
    return {
        "features": out.features,
        "logits": scorer.score(scorer.prepare(out), text),
        "logits_centred": scorer(out, text),
        "attn_contrib": parts.attn,
        "mlp_contrib": parts.mlp,
        "cls": out.embedding,
        "chosen_class": (out.embedding @ text.T).argmax(1),
    }
