"""Several methods in one forward pass: blocks 1 … L−1 run once, the last block once per method.

    f = Σ_m f_m / ‖f_m‖        over the members m, each a different attention of the last block

Ours, not from a paper: up to its length, the mean of unit features has the mean of the members' cosines.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import DenseExtractor, patches, to_grid
from .family import LastBlock
from .features import DenseFeatures


@DENSE.register_module()
class Ensemble(DenseExtractor):
    """The mean of several methods of the family, for little more than the cost of one.

    Args:
        members: configs or extractors of the family (``LastBlock``); the ensemble's positions and padding apply to all.
        **options: see ``DenseExtractor``.

    Raises:
        ValueError: no members, or one that does not belong to the family.
    """

    requires = ("attention",)
    name = "ensemble"
    paper = "ours"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)

    def __init__(self, members: Sequence = (dict(type="NACLIP"), dict(type="CLIPtrase")), **options):
        super().__init__(**options)
        built = [DENSE.build(dict(m)) if isinstance(m, dict) else m for m in members]
        wrong = [type(m).__name__ for m in built if not isinstance(m, LastBlock) or m.last_n != 1]
        if wrong or not built:
            raise ValueError(
                f"Ensemble takes one or more methods that read the last block once; got {', '.join(wrong) or 'none'}. "
                "For example members=[dict(type='NACLIP'), dict(type='SCLIP')]."
            )
        self.members = nn.ModuleList(built)

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size."""
        state, padding = self.start(tower, images)
        state = tower.advance(state, -1)
        block, total = tower.blocks[-1], state.x.new_zeros(())
        for member in cast("Iterable[LastBlock]", self.members):
            z = member.read_out(block, state.x, state.grid)
            total = total + F.normalize(tower.project(patches(z, state.grid)), dim=-1)
        return DenseFeatures(to_grid(total, state.grid), tower.embedding(state.x, state.grid), padding)
