"""CLIP Surgery for Better Explainability (Li et al., arXiv 2304.05653) [recalled].

    x̂ = x_{L−n} + Σ_{l=L−n}^{L−1} O_l( softmax(s·v_l v_lᵀ) v_l ),   f = proj(ln_post(x̂))

x_l are the tower's ordinary tokens: the new path reads them block by block and has no feed-forward part.  The paper's
feature surgery subtracts the same vector from the scores of all prompts of a patch, so it changes heat maps but no
labels; it is not implemented.  Written from memory of the paper and not checked against the authors' code.
"""

from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import patches, to_grid
from .family import LastBlock
from .features import DenseFeatures


@DENSE.register_module()
class CLIPSurgery(LastBlock):
    """A path of value-value attention parallel to the last blocks.

    Args:
        last_n: n, limited to half of the tower's blocks.
        **options: see ``LastBlock``.
    """

    relations = ("vv",)
    residual = False
    ffn = False
    requires = ("attention_blocks",)
    name = "clip_surgery"
    paper = "CLIP Surgery, 2023"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)

    def __init__(self, last_n: int = 6, **options):
        super().__init__(last_n=last_n, **options)

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        state, padding = self.start(tower, images)
        depth = len(tower.blocks)
        state = tower.advance(state, depth - min(self.last_n, max(1, depth // 2)))
        path = state.x
        for index in range(state.index, depth):
            state = tower.advance(state, index)
            path = path + self.read_out(tower.blocks[index], state.x, state.grid)
        features = to_grid(tower.project(patches(path, state.grid)), state.grid)
        return DenseFeatures(features, tower.embedding(state.x, state.grid), padding)
