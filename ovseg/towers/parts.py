"""Handles on the parts of a tower: which tensor is W_q of which block, whatever a family calls it.

They point at modules and names, not at parameters, so they stay right when a weight is replaced or parametrized.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


@dataclass(frozen=True)
class Weight:
    """Rows ``index·n/count`` to ``(index + 1)·n/count`` of a tensor with n rows, ``getattr(module, name)``."""

    module: nn.Module
    name: str = "weight"
    index: int = 0
    count: int = 1

    @property
    def tensor(self) -> Tensor:
        """The whole tensor."""
        return getattr(self.module, self.name)

    @property
    def rows(self) -> slice:
        size = len(self.tensor) // self.count
        return slice(self.index * size, (self.index + 1) * size)


@dataclass(frozen=True)
class AttentionParts:
    """One attention: W_q, W_k, W_v, W_o, and the modules that hold these and their biases."""

    q: Weight
    k: Weight
    v: Weight
    out: Weight
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Parts:
    """One side of a tower.

    modules       all of them
    attention     first to last
    feed_forward  matrices of the feed-forward layers
    blocks        modules between the stem and the read-out
    norms         modules whose scale and shift are those of a normalization
    positions     position tables
    projection    tensors of the projection into the joint space
    tokens        module whose rows are the embeddings of text tokens, None on the picture side
    blank         why one of these is empty, by its name; ``extra_tokens`` where no tokens can be added to blocks
    """

    modules: tuple[nn.Module, ...] = ()
    attention: tuple[AttentionParts, ...] = ()
    feed_forward: tuple[Weight, ...] = ()
    blocks: tuple[nn.Module, ...] = ()
    norms: tuple[nn.Module, ...] = ()
    positions: tuple[Weight, ...] = ()
    projection: tuple[Weight, ...] = ()
    tokens: nn.Module | None = None
    blank: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, each once."""
        for module in self.modules:
            yield from module.parameters(recurse=False)


def fused(module: nn.Module, name: str) -> tuple[Weight, Weight, Weight]:
    """W_q, W_k and W_v stacked in one tensor (3D, D)."""
    return tuple(Weight(module, name, index, 3) for index in range(3))


def weight_and_bias(module: nn.Module) -> tuple[Weight, ...]:
    """The tensors of a linear layer."""
    return tuple(Weight(module, name) for name in ("weight", "bias") if getattr(module, name, None) is not None)


def multihead(attention: nn.MultiheadAttention) -> AttentionParts:
    """The parts of torch's own attention."""
    return AttentionParts(*fused(attention, "in_proj_weight"), Weight(attention.out_proj), (attention,))


def stacks(weights: Iterable[Weight]) -> Iterator[tuple[nn.Module, str, int, list[int]]]:
    """(module, name, count, indices) of every tensor that weights are rows of, each once."""
    chosen: dict[tuple[nn.Module, str, int], list[int]] = {}
    for weight in weights:
        chosen.setdefault((weight.module, weight.name, weight.count), []).append(weight.index)
    for (module, name, count), indices in chosen.items():
        yield module, name, count, sorted(indices)


def transformer_parts(root: nn.Module, *, without: nn.Module | None = None) -> dict:
    """``attention``, ``feed_forward``, ``blocks`` and ``norms`` of the open_clip transformer blocks inside a module.

    Args:
        root: of either side.
        without: a module inside ``root`` that is passed over.
    """
    outside = set() if without is None else set(without.modules())
    modules = [module for module in root.modules() if module not in outside]
    layers = [module.mlp for module in modules if isinstance(module, ResidualAttentionBlock)]
    return {
        "attention": tuple(multihead(module) for module in modules if isinstance(module, nn.MultiheadAttention)),
        "feed_forward": tuple(Weight(linear) for layer in layers for linear in (layer.c_fc, layer.c_proj)),
        "blocks": tuple(module for module in modules if isinstance(module, ResidualAttentionBlock)),
        "norms": tuple(module for module in modules if isinstance(module, nn.LayerNorm)),
    }


def text_parts(clip: nn.Module, visual: nn.Module) -> Parts:
    """The text side of an open_clip model."""
    inside = set(visual.modules())
    owners = [module for module in clip.modules() if module not in inside]
    positions = [Weight(m, "positional_embedding") for m in owners if "positional_embedding" in m._parameters]
    text = clip if hasattr(clip, "token_embedding") else clip.text
    projection = text.text_projection
    linear = isinstance(projection, nn.Module)
    return Parts(
        modules=tuple(owners),
        **transformer_parts(clip, without=visual),
        positions=tuple(positions),
        projection=weight_and_bias(projection) if linear else (Weight(text, "text_projection"),),
        tokens=text.token_embedding,
    )
