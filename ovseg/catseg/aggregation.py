"""CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation (Cho, Shin et al., CVPR 2024): the aggregator.

    c_pt = ⟨f̂, t̂_p⟩ at every position,   x_t = conv7×7(c_·t),   L times: spatial, then class aggregation
    logits_t = conv3×3(up(up(x_t)))                                                        at four times the grid

f are dense image features, t_p the prompts of a class.  The steps are in ``spatial``, ``classes`` and ``decoder``;
modules are named as in the authors' checkpoints.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .classes import ClassAggregation, enlarged, pooled
from .decoder import Up
from .spatial import SpatialAggregation

ABSENT = -100.0  # logit of a class that ``top_k`` excludes


def cost_volume(features: Tensor, text: Tensor) -> Tensor:
    """Cosines (B, P, T, h, w) of features (B, E, h, w) with text (B, T, P, E), neither normalized."""
    return torch.einsum("behw,btpe->bpthw", F.normalize(features, dim=1), F.normalize(text, dim=-1))


def in_parts(step: Callable[[Tensor], Tensor], x: Tensor, axis: int, most: int) -> Tensor:
    """``step(x)`` in chunks of at most ``most`` slices, for a step that treats slices along an axis independently.

    Without gradients, the result is written into x unless a single chunk suffices.
    """
    if torch.is_grad_enabled() or most >= x.shape[axis]:
        return step(x)
    for part in x.split(most, axis):
        part.copy_(step(part))
    return x


class Layer(nn.Module):
    """One spatial aggregation for each class, then one class aggregation at each position.

    Args:
        width: C, channels of the volume.
        appearance, text: channels of the appearance and text guidance.
        heads, window, attention, pad_len: see ``CostAggregation``.
    """

    def __init__(self, width: int, appearance: int, text: int, heads: int, window: int, attention: str, pad_len: int):
        super().__init__()
        self.swin_block = SpatialAggregation(width, appearance, heads, window)
        self.attention = ClassAggregation(width, text, heads, attention, pad_len)

    def forward(self, x: Tensor, appearance: Tensor, text: Tensor, pooling: tuple[int, int], memory: int) -> Tensor:
        """(B, T, h, w, C) from (B, T, h, w, C), appearance (B, h, w, G) and text (B, T, G')."""
        grid, width = (x.shape[2], x.shape[3]), x.shape[4]
        per_class, per_position = (48 * width * n for n in (grid[0] * grid[1], x.shape[1]))  # twelve maps of floats
        x = in_parts(lambda part: self.swin_block(part, appearance), x, 1, max(1, memory // per_class))
        y = pooled(x, pooling)
        small = y.shape[2:4]

        def step(part):
            return self.attention(part, text)

        if y is x:  # pool(x) is x: add it chunk by chunk
            flat = in_parts(lambda part: part + step(part), x.flatten(2, 3), 2, max(1, memory // per_position))
            return flat.unflatten(2, grid)
        y = in_parts(step, y.flatten(2, 3), 2, max(1, memory // per_position)).unflatten(2, small)
        return x + enlarged(y, grid)


class CostAggregation(nn.Module):
    """Cost volume, aggregation and decoder.

    Args:
        hidden: C, channels of the volume.
        layers, heads, window: number of layers, attention heads, and side of a window in positions.
        prompts: P, prompts per class.
        embed_dim: E of features and text.
        text, appearance: channels of the text and appearance guidance after projection.
        guidance, projected: channels of the two maps that guide the decoder, before and after projection.
        decoder: channels after each upsampling step.
        attention: over classes, ``linear`` or ``full``.
        pad_len: fewer classes are padded to this number in the class aggregation; 0 for no padding.
        top_k: keep only this many classes per image, those with the highest cosine at any position and prompt; the
            others get the logit −100.  None keeps all.  The reference has ``top_k = pad_len``.
        costs: mean and standard deviation of the cosines, folded into the initialization of ``conv1``; our addition.
            Cosines lie close together around a mean far from 0; with (0, 1), as in the reference, a short run spends
            its first few hundred steps on what all classes share.
        prior: prior probability of a class, folded into the initialization of the last bias; our addition, 0.5 as in
            the reference.
        memory: budget in bytes.  Without gradients, images are processed one by one, and every step processes as many
            classes (the class aggregation: positions) at a time as fit into it.  This comes on top of the volume,
            4·T·h·w·C bytes, and the logits, 64·T·h·w: 0.25 and 0.03 GB for 847 classes on 24×24 positions with
            C = 128.  The result does not depend on it.
    """

    def __init__(
        self,
        hidden: int = 128,
        layers: int = 2,
        heads: int = 4,
        window: int = 12,
        prompts: int = 1,
        embed_dim: int = 512,
        text: int = 128,
        appearance: int = 128,
        guidance: Sequence[int] = (256, 128),
        projected: Sequence[int] = (32, 16),
        decoder: Sequence[int] = (64, 32),
        attention: str = "linear",
        pad_len: int = 256,
        top_k: int | None = None,
        costs: tuple[float, float] = (0.0, 1.0),
        prior: float = 0.5,
        memory: int = 64 * 2**20,
    ):
        super().__init__()
        self.top_k, self.memory, self.guidance = top_k, memory, tuple(guidance)
        self.settings = dict(heads=heads, window=window, attention=attention, pad_len=pad_len, top_k=top_k)
        self.conv1 = nn.Conv2d(prompts, hidden, 7, padding=3)
        with torch.no_grad():
            weight, bias = self.conv1.parameters()
            weight.div_(costs[1])
            bias.sub_(costs[0] * weight.sum((1, 2, 3)))
        self.guidance_projection = _projection(embed_dim, appearance)
        self.text_guidance_projection = nn.Sequential(nn.Linear(embed_dim, text), nn.ReLU())
        self.decoder_guidance_projection = nn.ModuleList(map(_projection, guidance, projected))
        self.layers = nn.ModuleList(
            Layer(hidden, appearance, text, heads, window, attention, pad_len) for _ in range(layers)
        )
        self.decoder1 = Up(hidden, decoder[0], projected[0])
        self.decoder2 = Up(decoder[0], decoder[1], projected[1])
        self.head = nn.Conv2d(decoder[1], 1, 3, padding=1)
        with torch.no_grad():
            _, bias = self.head.parameters()
            bias.add_(math.log(prior / (1 - prior)))
        self.register_load_state_dict_pre_hook(_without_masks)

    @classmethod
    def from_state(cls, state: dict[str, Tensor], **options) -> "CostAggregation":
        """Build the module from a state dict in the authors' naming, with sizes read from the shapes.

        Args:
            state: names and tensors; shift masks in it are ignored.
            **options: settings that the shapes do not determine: ``heads, window, attention, pad_len, top_k, memory``.

        Raises:
            ValueError: names that are missing, unexpected or of another shape.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        try:
            text, embed_dim = shapes["text_guidance_projection.0.weight"]
            projections = [shapes[f"decoder_guidance_projection.{i}.0.weight"] for i in (0, 1)]
            sizes: dict[str, Any] = {
                "hidden": shapes["conv1.weight"][0],
                "prompts": shapes["conv1.weight"][1],
                "layers": len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
                "embed_dim": embed_dim,
                "text": text,
                "appearance": shapes["guidance_projection.0.weight"][0],
                "guidance": [before for _, before, *_ in projections],
                "projected": [after for after, *_ in projections],
                "decoder": [shapes[f"decoder{i}.conv.double_conv.0.weight"][0] for i in (1, 2)],
            }
        except KeyError as error:
            raise ValueError(
                f"this is not a CAT-Seg cost aggregation: {error.args[0]} is missing. Expected the names of the "
                "authors' checkpoints, such as conv1.weight and layers.0.swin_block.block_1.attn.q.weight."
            ) from None
        if not any(name.endswith("padding_tokens") for name in shapes):
            options["pad_len"] = 0
        module = cls(**sizes, **options)
        load_named(module, state)
        return module.eval()

    def forward(
        self, features: Tensor, text: Tensor, guidance: Sequence[Tensor], pooling: tuple[int, int] = (1, 1)
    ) -> Tensor:
        """Logits (B, T, 4h, 4w).

        Args:
            features: (B, E, h, w), not normalized.
            text: (B, T, P, E).
            guidance: (B, G₁, 2h, 2w) and (B, G₂, 4h, 4w).
            pooling: cells of the class aggregation, in positions; (2, 2) in the authors' training, (1, 1) in their
                evaluation.

        Raises:
            ValueError: the number of prompts per class is not that of the aggregation.
        """
        if text.shape[2] != self.conv1.in_channels:
            raise ValueError(
                f"this aggregation takes {self.conv1.in_channels} prompt(s) per class, got {text.shape[2]}: pass text "
                f"of shape (B, T, {self.conv1.in_channels}, E)."
            )
        inputs = (features, text, *guidance)
        parts = [inputs] if torch.is_grad_enabled() else zip(*(t.split(1) for t in inputs), strict=True)
        return torch.cat([self._logits(*part, pooling=pooling) for part in parts])

    def _logits(
        self, features: Tensor, text: Tensor, early: Tensor, late: Tensor, *, pooling: tuple[int, int]
    ) -> Tensor:
        costs = cost_volume(features, text)
        total = costs.shape[2]
        if self.top_k is None or total <= self.top_k:
            return self._aggregated(costs, features, text, early, late, pooling)
        best = costs.amax((1, 3, 4)).topk(self.top_k, sorted=False).indices
        costs = torch.stack([cost[:, chosen] for cost, chosen in zip(costs, best, strict=True)])
        text = torch.stack([t[chosen] for t, chosen in zip(F.normalize(text, dim=-1), best, strict=True)])
        logits = self._aggregated(costs, features, text, early, late, pooling)
        where = best[:, :, None, None].expand_as(logits)
        return logits.new_full((len(logits), total, *logits.shape[2:]), ABSENT).scatter(1, where, logits)

    def _aggregated(self, costs, features, text, early, late, pooling) -> Tensor:
        appearance = self.guidance_projection(features).permute(0, 2, 3, 1)
        text = self.text_guidance_projection(F.normalize(text.mean(2), dim=-1))
        early, late = (f(g) for f, g in zip(self.decoder_guidance_projection, (early, late), strict=True))
        most = costs.shape[2]
        if not torch.is_grad_enabled():
            widest = max(self.decoder2.up.in_channels, self.conv1.out_channels // 4)
            most = max(1, self.memory // (16 * widest * costs.shape[3] * costs.shape[4] * 16))
        x = torch.cat([self._embedded(part) for part in costs.split(most, 2)], 1)
        for layer in self.layers:
            x = layer(x, appearance, text, pooling, self.memory)
        return torch.cat([self._decoded(part, early, late) for part in x.split(most, 1)], 1)

    def _embedded(self, costs: Tensor) -> Tensor:
        """(B, T, h, w, C) from costs (B, P, T, h, w)."""
        maps = costs.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.conv1(maps).permute(0, 2, 3, 1).unflatten(0, (len(costs), -1)).contiguous()

    def _decoded(self, x: Tensor, early: Tensor, late: Tensor) -> Tensor:
        """Logits (B, T, 4h, 4w) from (B, T, h, w, C)."""
        maps = self.decoder1(x.flatten(0, 1).permute(0, 3, 1, 2), early)
        return self.head(self.decoder2(maps, late)).unflatten(0, x.shape[:2])[:, :, 0]


def _projection(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())


def _without_masks(module, state: dict, prefix: str, *_):
    """Drop the attention masks of shifted windows, which the reference stores for one grid; they are not used here."""
    for name in [n for n in state if n.startswith(prefix) and n.endswith("attn_mask")]:
        del state[name]


def load_named(module: nn.Module, state: dict[str, Tensor]):
    """Load a state dict strictly.

    Raises:
        ValueError: names that are missing, unexpected or of another shape; the message counts all of them.
    """
    own = module.state_dict()
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith("attn_mask")}
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [n for n in own if n in tensors and own[n].shape != tensors[n].shape],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for what, names in problems.items()
            if names
        )
        raise ValueError(
            f"the weights do not fit {type(module).__name__}: {listed}. Pass a complete checkpoint with its settings."
        )
    module.load_state_dict(tensors)
