"""The contract of image towers: any H×W in, tokens out, every part of the last blocks within reach."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tokenizer import TokenizerRecord

TAPS = ("in", "ln_1", "q", "k", "v", "attn", "ln_2", "out")


@dataclass(frozen=True)
class Preprocess:
    """How weights want images: RGB in [0, 1], minus ``mean``, divided by ``std``."""

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class TowerCard:
    """What is known of a set of weights besides the weights.

    name       as the user may type it again, e.g. ``ViT-B-16/openai``
    hash       short hex digest of the tensors
    config     open_clip's config of an architecture that the tensors' shapes do not tell
    tokenizer  what words are read with
    identity   hex digest of all that changes an embedding (``towers.identity``); empty where the tensors' is unknown
    words      the only words the text tower has learned (None: open)
    notice     one line to show at first use
    protocol   prediction settings that suit these weights, as keyword arguments of ``Protocol``
    """

    name: str = "unnamed"
    hash: str = ""
    identity: str = ""
    config: dict | None = None
    tokenizer: TokenizerRecord = TokenizerRecord()
    words: tuple[str, ...] | None = None
    notice: str = ""
    protocol: dict = field(default_factory=dict)


@dataclass
class TokenState:
    """Tokens on their way through a tower.

    x      (B, P + h·w, D) tokens that enter block ``index``, the patches last; before them P tokens that have no place:
           a class token, the mean of the patches (ResNets), or none
    grid   (h, w)
    index  block that comes next
    taps   tensors by tap name
    """

    x: Tensor
    grid: tuple[int, int]
    index: int
    taps: dict[str, Tensor] = field(default_factory=dict)


class Block(Protocol):
    has_residual: bool
    has_attention: bool
    heads: int
    scale: float
    block: Any
    attention: Any

    def ln_1(self, x: Tensor) -> Tensor: ...
    def ln_2(self, x: Tensor) -> Tensor: ...
    def qkv(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...
    def values(self, normed: Tensor) -> Tensor: ...
    def out(self, values: Tensor) -> Tensor: ...
    def ffn(self, x: Tensor) -> Tensor: ...
    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor: ...
    def with_tokens(self, x: Tensor, tokens: Tensor) -> Tensor: ...


class Tower(nn.Module, ABC):
    """An image tower, and the text tower that shares its embedding space.

    Attributes:
        family: name of its family, see ``family.TowerFamily``.
        provides: what it has, names of ``capabilities.CAPABILITIES``.
        visual: the image module (open_clip).
        clip: the whole open_clip model, or None where only the image side is known.
        blocks: the opened blocks, first to last.
        stride: pixels per patch side.
        image_size: (H, W) in pixels of the pictures it was trained on.
        table_grid: (h, w) of its position table.
        width: D.  embed_dim: E.
        preprocess, card: travel with the weights.
        prompt_length: learned vectors before every prompt (``tuning.Prompt``).
    """

    family: str
    provides: frozenset[str]
    visual: Any
    clip: Any
    blocks: Sequence[Block]
    stride: int
    width: int
    embed_dim: int
    stages: Callable[[Tensor, int], list[Tensor]]
    enter: Callable[[Tensor, tuple[int, int]], TokenState]
    patches: Callable[[Tensor, int, int], Tensor]
    position_table: Callable[[tuple[int, int], str], Tensor]
    image_size: tuple[int, int]
    table_grid: tuple[int, int]
    prompt_length = 0

    def __init__(self, visual: nn.Module, clip: nn.Module | None, preprocess: Preprocess, card: TowerCard):
        super().__init__()
        self.visual = visual
        self.clip = clip
        self.preprocess, self.card = preprocess, card
        self.eval().requires_grad_(False)

    @abstractmethod
    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        """Tokens that enter the first block. ``images``: (B, 3, H, W), normalized, of any size from one patch up."""

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """Last normalization and projection into the joint space: (B, N, D) → (B, N, E)."""

    @abstractmethod
    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """The image embedding (B, E), not normalized, from the tokens (B, P + h·w, D) that enter the last block."""

    def advance(self, state: TokenState, stop: int, taps: Sequence[str] = ()) -> TokenState:
        """Run blocks up to, not including, block ``stop`` (negative counts from the end; ``depth`` runs all).

        ``taps`` name what to keep: ``block.I.PART`` with PART of ``in, ln_1, q, k, v, attn, ln_2, out`` and I possibly
        negative; ``attn`` is (B, heads, N, N), q, k, v are (B, heads, N, d), the others (B, N, D).
        """
        stop = stop % len(self.blocks) if stop < 0 else stop
        wanted = self._wanted(taps)
        for index in range(state.index, stop):
            parts = wanted.get(index)
            if parts:
                state.x = self._tapped(self.blocks[index], state, parts)
            else:
                state.x = self.blocks[index](state.x)
        state.index = max(stop, state.index)
        return state

    def forward(self, images: Tensor, taps: Sequence[str] = (), positions: str = "scale") -> tuple[Tensor, TokenState]:
        """The image embedding (B, E) as open_clip's ``encode_image`` gives it, and the final state with ``taps``."""
        state = self.advance(self.start(images, positions), -1, taps)
        embedding = self.embedding(state.x, state.grid)
        return embedding, self.advance(state, len(self.blocks), taps)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Patch grid (h, w) of a picture of the given size in pixels."""
        return height // self.stride, width // self.stride

    def normalize(self, images: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] → zero mean, unit variance by the weights' statistics (or others)."""
        use = preprocess or self.preprocess
        mean, std = (
            torch.tensor(v, dtype=images.dtype, device=images.device).view(3, 1, 1) for v in (use.mean, use.std)
        )
        return (images - mean) / std

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of ``normalize`` with the weights' statistics: (B, 3, H, W) RGB, about [0, 1]."""
        mean, std = (
            torch.tensor(v, dtype=images.dtype, device=images.device).view(3, 1, 1)
            for v in (self.preprocess.mean, self.preprocess.std)
        )
        return images * std + mean

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def logit_scale(self) -> float:
        """exp of the learned temperature (100 for most released CLIP weights; 100 where there is no text tower)."""
        return float(self.clip.logit_scale.exp()) if self.clip is not None else 100.0

    def _check(self, images: Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < self.stride:
            raise ValueError(
                f"the tower takes (B, 3, H, W) with H and W of at least {self.stride} pixels (one patch), got "
                f"{tuple(images.shape)}. Enlarge the picture first."
            )

    def _wanted(self, taps: Sequence[str]) -> dict[int, list[tuple[str, str]]]:
        wanted: dict[int, list[tuple[str, str]]] = {}
        for tap in taps:
            head, _, part = tap.rpartition(".")
            number = head.removeprefix("block.")
            depth = len(self.blocks)
            if part not in TAPS or not number.lstrip("-").isdigit() or not -depth <= int(number) < depth:
                raise ValueError(
                    f"unknown tap {tap!r}: expected block.I.PART with I from {-depth} to {depth - 1} and PART one of "
                    f"{', '.join(TAPS)}, for example block.-1.q."
                )
            wanted.setdefault(int(number) % depth, []).append((tap, part))
        return wanted

    def _tapped(self, block, state: TokenState, parts) -> Tensor:
        """One block with its parts written out, so that they can be kept; N×N weights only where ``attn`` is wanted."""
        x, wanted = state.x, {part for _, part in parts}
        normed = block.ln_1(x)
        q, k, v = block.qkv(normed)
        values = {"in": x, "ln_1": normed, "q": q, "k": k, "v": v}
        if "attn" in wanted:
            values["attn"] = (block.scale * q @ k.transpose(-2, -1)).softmax(-1)
            y = block.out(values["attn"] @ v)
        else:
            y = block.out(F.scaled_dot_product_attention(q, k, v, scale=block.scale))
        y = x + y if block.has_residual else y
        if "ln_2" in wanted:
            values["ln_2"] = block.ln_2(y)
        values["out"] = y + block.ffn(y) if block.has_residual else y
        state.taps.update({tap: values[part] for tap, part in parts})
        return values["out"]
