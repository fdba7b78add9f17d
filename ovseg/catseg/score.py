"""CAT-Seg's scores (Cho, Shin et al., CVPR 2024): aggregated costs, one logit per class at four times the patch grid.

p = σ(logit) for each class separately: the probabilities at a position need not sum to one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS, accepted_keys, did_you_mean

from .aggregation import CostAggregation, load_named
from .decoder import spread
from .released import read_head

NOT_IN_SHAPES = ("heads", "window", "attention", "pad_len", "top_k", "memory")


@SCORERS.register_module()
class CostScore(nn.Module):
    """Logits of all classes of an image at once, from ``CATSeg``'s features.

    Modules are named as in the authors' checkpoints: ``transformer`` is the aggregation, ``upsample1`` and
    ``upsample2`` bring the guidance maps to twice and four times the grid.  A pipeline applies ``activation`` to the
    maps of a window before it averages windows.  All classes attend to each other, so the logits of the whole
    vocabulary are held, 64·T·h·w bytes per window; intermediate results are computed in chunks
    (``CostAggregation.memory``).

    Args:
        checkpoint: the authors' file, or one of ``ovseg train``; sizes are read from it.
        scratch: start from random weights, which is only useful for training; ``checkpoint`` takes precedence.
        width: D of the tower, for random weights: 768 for ViT-B, 1024 for ViT-L.
        pooling, pooling_eval: cells of the class aggregation, in positions, in training and in evaluation.
        taps: standard deviations of the two taps, folded into the initialization of ``upsample1`` and ``upsample2``;
            our addition, (1, 1) as in the reference.  Without it, a tower with large tokens drowns out the costs for
            much of the training.
        aggregation: arguments of ``CostAggregation``; sizes among them only apply to random weights.

    Raises:
        ValueError: neither ``checkpoint`` nor ``scratch``; a file of another kind; unknown arguments; at run time,
            features of an extractor without guidance or of another tower.
        FileNotFoundError: no such file.
    """

    name = "cost"
    probabilities = True
    first_is_background = False

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        scratch: bool = False,
        width: int = 768,
        pooling: Sequence[int] = (2, 2),
        pooling_eval: Sequence[int] = (1, 1),
        taps: Sequence[float] = (1.0, 1.0),
        aggregation: dict | None = None,
    ):
        super().__init__()
        self.pooling, self.pooling_eval = tuple(pooling), tuple(pooling_eval)
        settings = dict(aggregation or {})
        known = accepted_keys(CostAggregation)
        for name in settings:
            if known is not None and name not in known:
                raise ValueError(
                    f"CostAggregation has no argument {name!r}. {did_you_mean(name, known)}It accepts: "
                    f"{', '.join(known)}."
                )
        if checkpoint is None and not scratch:
            raise ValueError(
                "catseg needs its trained aggregation; random weights would be meaningless. The authors' file and "
                "those of ovseg export contain it together with the tuned CLIP: pass weights='model_base.pth' to "
                "ovseg.load, or --weights; in a config also dense=dict(type='CATSeg', checkpoint='model_base.pth'). "
                "To train one: scorer=dict(type='CostScore', scratch=True)."
            )
        if checkpoint is not None:
            state, recorded = read_head(checkpoint)
            self._add(state, recorded | {k: v for k, v in settings.items() if k in NOT_IN_SHAPES})
        else:
            self.transformer = CostAggregation(**settings)
            early, late = self.transformer.guidance
            self.upsample1 = nn.ConvTranspose2d(width, early, 2, 2)
            self.upsample2 = nn.ConvTranspose2d(width, late, 4, 4)
            with torch.no_grad():
                self.upsample1.weight.div_(taps[0])
                self.upsample2.weight.div_(taps[1])

    @classmethod
    def from_state(
        cls, state: dict[str, Tensor], pooling: Sequence[int] = (2, 2), pooling_eval: Sequence[int] = (1, 1), **settings
    ) -> "CostScore":
        """From the result of ``released.head_state``; ``settings`` are those that shapes do not determine.

        Raises:
            ValueError: names that are missing, unexpected or of another shape.
        """
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module.pooling, module.pooling_eval = tuple(pooling), tuple(pooling_eval)
        module._add(state, settings)
        return module.eval()

    def _add(self, state: dict[str, Tensor], settings: dict):
        """Build and load the parts, with the sizes of ``state``."""
        own = {name.removeprefix("transformer."): t for name, t in state.items() if name.startswith("transformer.")}
        self.transformer = CostAggregation.from_state(own, **settings)
        for name in ("upsample1", "upsample2"):
            if f"{name}.weight" not in state:
                raise ValueError(f"this CAT-Seg checkpoint is incomplete: {name}.weight is missing.")
            before, after, kernel, _ = state[f"{name}.weight"].shape
            self.add_module(name, nn.ConvTranspose2d(before, after, kernel, kernel))
        load_named(self, state)

    @staticmethod
    def activation(logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        """Logits (B, T, 4h, 4w) for text (T, E), (T, P, E) with P prompts per class, or (B, T, P, E)."""
        if "guidance" not in dense.extras:
            raise ValueError("CostScore needs the maps of two earlier blocks, which only the method catseg returns.")
        early, late = dense.extras["guidance"].unbind(1)
        expected = self.upsample1.in_channels, self.transformer.guidance_projection[0].in_channels
        if (early.shape[1], dense.features.shape[1]) != expected:
            raise ValueError(
                f"this aggregation was made for a tower of width {expected[0]} and embeddings of {expected[1]}; this "
                f"tower has {early.shape[1]} and {dense.features.shape[1]}. Use the weights it belongs to: CAT-Seg's "
                "files contain both, so pass the same file as weights= and checkpoint=."
            )
        text = text[:, None] if text.ndim == 2 else text
        return self.transformer(
            dense.features,
            text if text.ndim == 4 else text.expand(len(dense.features), -1, -1, -1),
            (spread(self.upsample1, early), spread(self.upsample2, late)),
            self.pooling if self.training else self.pooling_eval,
        )
