"""Which parameters of a tower train: presets that can be combined and used with any method.

======================  ===========================================================================  ==================
preset                  trains                                                                       source
======================  ===========================================================================  ==================
``QV``                  W_q and W_v of all blocks                                                    CAT-Seg, CVPR 2024
``Attention``           all weights and biases of attention                                          PixelCLIP, 2024
``Positions``           position tables                                                              CAT-Seg (paper)
``Norms``               scale and shift of all LayerNorms
``LastProjection``      the projection into the joint space                                          ProLIP [recalled]
``LoRA``                W + (α/r)·B A with A (r, d_in), B (d_out, r), B = 0 at first                 Hu et al., 2022
``SingularValues``      only s of W = U diag(s) Vᵀ                                                   CLIP-SVD [abstract]
``Prompt``              M vectors before every prompt of the text tower                              CoOp, IJCV 2022
``VisualPrompt``        tokens added to the input of each block but the last and dropped after it    VPT, ECCV 2022
``Everything``          all parameters
======================  ===========================================================================  ==================

A tower is frozen until a preset is applied.  Presets that replace a weight do it by a parametrisation
(``torch.nn.utils.parametrize``), so every reader of the weight sees the tuned one; ``merge`` writes it back.
"""

from collections.abc import Sequence

from torch.nn.utils import parametrize

from ovseg.registry import TUNING
from ovseg.towers.base import Tower

from .base import Tuning
from .choose import Attention, Everything, LastProjection, Norms, Positions
from .prompts import Prompt, VisualPrompt
from .reparametrise import QV, LoRA, SingularValues

__all__ = [
    "QV", "Attention", "Everything", "LastProjection", "LoRA", "Norms", "Positions", "Prompt", "SingularValues",
    "Tuning", "VisualPrompt", "apply", "merge", "trains",
]


def apply(self, tower: Tower) -> int:
        """Make the preset's parameters trainable; how many numbers that are."""
        total = 0
        for name in self.towers:
            parameters = {id(p): p for p in self.tune(tower, name)}
            if not parameters:
                raise ValueError(f"{type(self).__name__} finds nothing to tune in the {name} side of {tower.card.name}.")
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            total += sum(parameter.numel() for parameter in parameters.values())
        return total

    @abstractmethod
    def tune(self, tower: Tower, name: str) -> Iterator[nn.Parameter]:
        """Parameters of one side that shall train."""

    def penalty(self) -> Tensor | None:
        """A term of the loss that belongs to the preset, or None."""
        return None


def attentions(tower: Tower, name: str) -> list[nn.MultiheadAttention]:
    return [module for module in side(tower, name).values() if isinstance(module, nn.MultiheadAttention)]


class Stacked(nn.Module):
    """in_proj_weight (3D, D) from its parts W_q, W_k, W_v, so that they can train apart."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([q, k, v])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in weight.chunk(3))


@TUNING.register_module()
class QV(Tuning):
    """W_q and W_v of all blocks; biases stay."""

    def tune(self, tower, name):
        for attention in attentions(tower, name):
            parametrize.register_parametrization(attention, "in_proj_weight", Stacked())
            parts = attention.parametrizations["in_proj_weight"]
            parts.original1.requires_grad_(False)
            yield from (parts.original0, parts.original2)


@TUNING.register_module()
class Attention(Tuning):
    """All weights and biases of attention, also of a ResNet's attention pool."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.MultiheadAttention):
                yield from module.parameters()
        if name == "visual" and hasattr(tower.visual, "attnpool"):
            pool = tower.visual.attnpool
            yield from (p for key, p in pool.named_parameters() if key != "positional_embedding")


@TUNING.register_module()
class Positions(Tuning):
    """Position tables."""

    def tune(self, tower, name):
        for module in (*side(tower, name).values(), *([tower.clip] if name == "text" else [])):
            if "positional_embedding" in module._parameters:
                yield module.positional_embedding


@TUNING.register_module()
class Norms(Tuning):
    """Scale and shift of all LayerNorms."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.LayerNorm):
                yield from module.parameters()


@TUNING.register_module()
class Everything(Tuning):
    """All parameters of a side."""

    def tune(self, tower, name):
        own = list(tower.visual.parameters())
        if name == "visual":
            yield from own
        else:
            side(tower, name)
            known = {id(p) for p in own}
            yield from (p for p in tower.clip.parameters() if id(p) not in known)


@TUNING.register_module()
class LastProjection(Tuning):
    """The projection into the joint space, with the penalty λ‖W − W₀‖² on the loss.

    Args:
        towers: sides.
        weight: λ; ProLIP takes 1/n or 1/n² for n examples per class [recalled].
    """

    def __init__(self, towers: Sequence[str] = ("visual",), weight: float = 0.0):
        super().__init__(towers)
        self.weight = weight
        self._start: list[tuple[nn.Parameter, Tensor]] = []

    def tune(self, tower, name):
        owner, key = (tower.visual, "proj") if name == "visual" else (tower.clip, "text_projection")
        if name == "visual" and hasattr(tower.visual, "attnpool"):
            owner, key = tower.visual.attnpool.c_proj, "weight"
        projection = getattr(owner, key, None)
        found = list(projection.parameters()) if isinstance(projection, nn.Module) else [projection]
        for parameter in found:
            if isinstance(parameter, nn.Parameter):
                self._start.append((parameter, parameter.detach().clone()))
                yield parameter

    def penalty(self):
        if not self.weight:
            return None
        return self.weight * sum((p - start.to(p.device)).square().sum() for p, start in self._start)


class LowRank(nn.Module):
    """W + (α/r)·B A on chosen thirds of a weight (n·d_out, d_in)."""

    def __init__(self, weight: Tensor, parts: int, chosen: Sequence[int], rank: int, alpha: float):
        super().__init__()
        rows, columns = weight.shape[0] // parts, weight.shape[1]
        self.parts, self.chosen, self.scale = parts, tuple(chosen), alpha / rank
        self.down = nn.Parameter(torch.randn(len(chosen), rank, columns, dtype=weight.dtype) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(len(chosen), rows, rank, dtype=weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        change = self.scale * self.up @ self.down
        thirds = list(weight.chunk(self.parts))
        for index, part in zip(self.chosen, change, strict=True):
            thirds[index] = thirds[index] + part
        return torch.cat(thirds)


@TUNING.register_module()
class LoRA(Tuning):
    """Low-rank changes of attention.

    Args:
        towers: sides.
        rank: r.
        alpha: α.
        targets: some of ``q``, ``k``, ``v``, ``out``.
    """

    def __init__(self, towers=("visual",), rank: int = 8, alpha: float = 8.0, targets: Sequence[str] = ("q", "v")):
        super().__init__(towers)
        if rank < 1 or not targets or set(targets) - {"q", "k", "v", "out"}:
            raise ValueError(f"LoRA: rank is at least 1, targets some of q, k, v, out; got {rank}, {tuple(targets)}.")
        self.rank, self.alpha, self.targets = rank, alpha, tuple(targets)

    def tune(self, tower, name):
        chosen = [index for index, part in enumerate("qkv") if part in self.targets]
        for attention in attentions(tower, name):
            if chosen:
                yield from self._add(attention, "in_proj_weight", 3, chosen)
            if "out" in self.targets:
                yield from self._add(attention.out_proj, "weight", 1, [0])

    def _add(self, module: nn.Module, key: str, parts: int, chosen: list[int]) -> Iterator[nn.Parameter]:
        weight = getattr(module, key)
        change = LowRank(weight, parts, chosen, self.rank, self.alpha).to(weight.device)
        parametrize.register_parametrization(module, key, change)
        yield from (change.up, change.down)


class Spectrum(nn.Module):
    """A weight of n stacked matrices from their singular values s (n, min(d_out, d_in)); U and V stay."""

    def __init__(self, weight: Tensor, parts: int):
        super().__init__()
        u, self._start, v = torch.linalg.svd(torch.stack(weight.detach().float().chunk(parts)), full_matrices=False)
        self.register_buffer("u", u.to(weight.dtype))
        self.register_buffer("v", v.to(weight.dtype))

    def forward(self, s: Tensor) -> Tensor:
        return ((self.u * s[:, None]) @ self.v).flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._start.to(weight)


@TUNING.register_module()
class SingularValues(Tuning):
    """Singular values of all attention and feed-forward weights; they may become negative."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.MultiheadAttention):
                yield self._decompose(module, "in_proj_weight", 3)
                yield self._decompose(module.out_proj, "weight", 1)
            elif hasattr(module, "c_fc") and hasattr(module, "c_proj"):
                yield self._decompose(module.c_fc, "weight", 1)
                yield self._decompose(module.c_proj, "weight", 1)

    @staticmethod
    def _decompose(module: nn.Module, key: str, parts: int) -> nn.Parameter:
        weight = getattr(module, key)
        parametrize.register_parametrization(module, key, Spectrum(weight, parts).to(weight.device))
        return module.parametrizations[key].original


@TUNING.register_module()
class Prompt(Tuning):
    """M learned vectors between the start token and every prompt, shared by all words.

    ``TextEncoder`` puts M placeholder words there, and this preset puts its vectors in place of their embeddings.

    Args:
        length: M.
    """

    def __init__(self, length: int = 16, towers: Sequence[str] = ("text",)):
        super().__init__(towers)
        if self.towers != ("text",) or length < 1:
            raise ValueError(f"Prompt tunes the text side with at least one vector; got {self.towers}, {length}.")
        self.length = length

    def tune(self, tower, name):
        table = side(tower, name)["token_embedding"]
        table.contexts = nn.Parameter(torch.randn(self.length, table.embedding_dim, device=table.weight.device) * 0.02)
        table.register_forward_hook(
            lambda module, _, out: torch.cat([out[:, :1], _rows(module.contexts, out), out[:, 1 + self.length :]], 1)
        )
        tower.prompt_length = self.length
        yield table.contexts


class PromptedBlock:
    """A block that sees learned tokens beside those of the picture."""

    has_residual = True

    def __init__(self, block: TappedBlock, owner: nn.Module, index: int):
        self.block, self.owner, self.index = block, owner, index

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        prompts = _rows(self.owner.visual_prompts[self.index], x)
        return self.block(torch.cat([x, prompts], 1))[:, : x.shape[1]][:, queries]

    def ln_1(self, x: Tensor) -> Tensor:
        """Where every reader of a block's parts begins.

        Raises:
            ValueError: always; the parts would lack the learned tokens.
        """
        raise ValueError(
            "a block with visual prompts cannot be read part by part; tap the last block, or tune otherwise."
        )


@TUNING.register_module()
class VisualPrompt(Tuning):
    """Learned tokens at every block of a ViT but the last, which dense methods read part by part.

    Args:
        length: tokens per block.
    """

    def __init__(self, length: int = 10, towers: Sequence[str] = ("visual",)):
        super().__init__(towers)
        if self.towers != ("visual",) or length < 1:
            raise ValueError(
                f"VisualPrompt tunes the visual side with at least one token; got {self.towers}, {length}."
            )
        self.length = length

    def tune(self, tower, name):
        if not isinstance(tower.blocks[0], TappedBlock) or len(tower.blocks) < 2:
            return
        owner, depth = tower.visual, len(tower.blocks) - 1
        start = torch.empty(depth, self.length, tower.width, device=tower.device, dtype=tower.dtype)
        owner.visual_prompts = nn.Parameter(nn.init.xavier_uniform_(start))
        tower.blocks = [PromptedBlock(block, owner, i) for i, block in enumerate(tower.blocks[:-1])] + tower.blocks[-1:]
        yield owner.visual_prompts


def apply(tower: Tower, presets: Sequence[dict | Tuning]) -> list[Tuning]:
    """Apply presets, or their configs, to a tower in the order given; the presets.

    Raises:
        ValueError: see ``Tuning``.
    """
    built = [TUNING.build(dict(preset)) if isinstance(preset, dict) else preset for preset in presets]
    for preset in built:
        preset.apply(tower)
    return built


def merge(tower: Tower) -> Tower:
    """Write parametrised weights back as plain ones, in place; the tower gives what it gave."""
    for module in list(tower.modules()):
        if parametrize.is_parametrized(module):
            for key in list(module.parametrizations):
                parametrize.remove_parametrizations(module, key, leave_parametrized=True)
    return tower


def trains(tower: Tower, name: str) -> bool:
    """Whether anything of one side of a tower trains."""
    visual = {id(p) for p in tower.visual.parameters()}
    if name == "visual":
        return any(p.requires_grad for p in tower.visual.parameters())
    return tower.clip is not None and any(p.requires_grad for p in tower.clip.parameters() if id(p) not in visual)
