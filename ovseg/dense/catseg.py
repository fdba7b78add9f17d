"""CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation (Cho, Shin et al., CVPR 2024): the dense CLIP.

A = identity:  z = O(v) + x_class,   f = proj(ln_post(z + FFN(z)))

x_class, the class token at the input of the last block, replaces every token's own residual.  The tower is fine-tuned;
``ovseg.catseg.CostScore`` aggregates the cosines of its features with the text embeddings.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ovseg.compat.checkpoint import read_metadata
from ovseg.compat.untrusted import parse_json
from ovseg.compat.untrusted_types import options_of
from ovseg.registry import DENSE
from ovseg.towers import TokenState, Tower

from .base import to_grid
from .family import LastBlock


@DENSE.register_module()
class CATSeg(LastBlock):
    """The value path with the class token's residual, and two earlier maps that guide the upsampling.

    Args:
        checkpoint: file with the trained aggregation, for the scorer.  The authors' files and those of
            ``ovseg export`` also contain the tuned CLIP, so as ``weights`` of ``ovseg.load`` they serve as both.
            Ours also record the options of the training run; options passed here take precedence.
        taps_at: the two blocks whose outputs are ``extras["guidance"]`` (B, 2, D, h, w), the earlier one first: indices
            from 0, or fractions of the depth: (1/3, 2/3) are blocks 3 and 7 of 12, or 7 and 15 of 24, as in the
            reference.
        **options: see ``LastBlock``.

    Raises:
        ValueError: not exactly two blocks; at run time, blocks that are not before the last one.
    """

    relations = ("identity",)
    residual = "class"
    positions = "exact"
    requires = ("attention_blocks", "class_token")
    needs = ("checkpoint",)
    in_weights = ("checkpoint",)
    name = "catseg"
    paper = "CAT-Seg, CVPR 2024"
    protocol = dict(
        size=(640, 640),
        window=384,
        stride=256,
        view=384,
        whole_view=True,
        templates=("A photo of a {} in the scene",),
    )

    def __init__(self, checkpoint: str | Path | None = None, taps_at: Sequence[float] = (1 / 3, 2 / 3), **options):
        metadata = "{}" if checkpoint is None else read_metadata(checkpoint).get("dense", "{}")
        recorded = options_of(DENSE, "CATSeg")(parse_json(metadata, f"dense of {checkpoint}"), f"dense of {checkpoint}")
        super().__init__(**(recorded | options))
        self.scorer = dict(type="CostScore", checkpoint=checkpoint)
        self.taps_at = tuple(taps_at)
        if len(self.taps_at) != 2:
            raise ValueError(f"CATSeg uses the outputs of two blocks; got taps_at={self.taps_at}.")

    def taps_of(self, tower: Tower) -> tuple[str, ...]:
        last = len(tower.blocks) - 1
        numbers = [at if isinstance(at, int) else round(at * (last + 1)) - 1 for at in self.taps_at]
        if not all(0 <= number < last for number in numbers):
            raise ValueError(
                f"CATSeg: taps_at={self.taps_at} are the blocks {numbers} of this tower, expected blocks from 0 to "
                f"{last - 1}, those before the last."
            )
        return tuple(f"block.{number}.out" for number in numbers)

    def extras(self, tower: Tower, state: TokenState) -> dict[str, Tensor]:
        maps = [to_grid(state.taps[tap][:, 1:], state.grid) for tap in self.taps_of(tower)]
        return {"guidance": torch.stack(maps, 1)}
