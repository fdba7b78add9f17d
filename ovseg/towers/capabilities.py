"""What towers can have and methods can need, by name: ``Tower.provides`` and ``requires`` are sets of these.

A family says what its towers provide, a method what it requires; neither knows the other.  ``missing`` compares them,
``require`` refuses a misfit.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Tower

CAPABILITIES = {
    "attention": "attention",
    "attention_blocks": "attention blocks on a residual stream with open queries, keys and values",
    "attention_pool": "an attention pool over a feature map",
    "stages": "the four stages of a convolutional network",
    "class_token": "a class token",
    "class_pooling": "an image embedding that is the projected class token",
    "patch_stem": "patches of one convolution that only the position table places",
    "additive_heads": "attention heads that add up without a normalization between",
    "square_grid": "a square position table",
}
CONVOLUTIONAL = {"attention_pool", "stages"}


def missing(tower: "Tower", requires: Iterable[str]) -> tuple[str, ...]:
    """The capabilities a tower lacks, in the order of ``CAPABILITIES``; empty: it fits.

    Raises:
        KeyError: a requirement that is no capability.
    """
    wanted = set(requires)
    if unknown := wanted - CAPABILITIES.keys():
        raise KeyError(f"{', '.join(sorted(unknown))}: not among the capabilities {', '.join(CAPABILITIES)}.")
    return tuple(name for name in CAPABILITIES if name in wanted - tower.provides)


def require(tower: "Tower", requires: Iterable[str], user: str):
    """Refuse a tower that lacks something.

    Args:
        tower: of any family.
        requires: names of ``CAPABILITIES``.
        user: who needs them, as the message shall begin.

    Raises:
        ValueError: what is missing and which weights have it.
    """
    if absent := missing(tower, requires):
        example = "RN50/openai" if CONVOLUTIONAL & set(absent) else "ViT-B-16/openai"
        *some, last = (CAPABILITIES[name] for name in absent)
        raise ValueError(
            f"{user} needs {', '.join(some) + ' and ' if some else ''}{last}, which {tower.card.name} "
            f"({tower.family}) does not have; choose other weights, such as {example}."
        )
