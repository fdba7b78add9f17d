"""EVA-02-CLIP's Vision Transformer (Sun et al., EVA-CLIP, 2023), as timm's ``Eva`` has it and as its authors name it.

q, k = R(W_q x + b_q), R(W_k x);   v = W_v x + b_v;   x' = x + W_o LN(softmax(s·q kᵀ) v) + b_o                  (sub-LN)
x'' = x' + W_3 LN(silu(W_1 y) ⊙ W_2 y),  y = LN(x')                                                            (SwiGLU)
f = W_h LN(x'') + b_h

R turns the pairs of numbers (2i, 2i + 1) of a patch's query and key: those of the first half of a head by the angle
t_y ω_i, of the second by t_x ω_i, with ω_i = 10000^(-i / (d/4)) and t = p·index / n for n patches along that side.  So
whatever the grid, positions run from 0 to p, the side of the grid that the frequencies were made for (16).  The class
token is not turned.
"""

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import LayerNorm, RotaryEmbeddingCat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn

from ovseg.registry import TOWERS
from ovseg.threads import PerThread

from .base import TokenState
from .family import TowerFamily
from .parts import AttentionParts, Parts, Weight, fused, weight_and_bias
from .positions import as_recorded, as_size, recorded_grid, resize_positions

REFERENCE = 16  # p of all EVA-02-CLIP weights
TRUNK = "visual.trunk."


@lru_cache(maxsize=16)
def rotations(
    grid: tuple[int, int], width: int, reference: tuple[int, int] | None, temperature: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin (h·w, d) of the angles of every patch, for heads of width d; each angle stands twice in a row."""
    with torch.inference_mode(False):  # what is kept shall serve in training too
        omega = temperature ** (-torch.arange(width // 4, device=device) / (width // 4))
        steps = [1.0, 1.0] if reference is None else [p / n for p, n in zip(reference, grid, strict=True)]
        t = [torch.arange(n, device=device) * step for n, step in zip(grid, steps, strict=True)]
        down, across = (each[:, None] * omega for each in t)
        angles = torch.cat(torch.broadcast_tensors(down[:, None], across[None]), -1).flatten(0, 1)
        angles = angles.repeat_interleave(2, -1)
        return angles.cos(), angles.sin()


class Rotation:
    """RoPE of a tower's blocks.

    Blocks are given tokens without their grid, so the tower tells the grid here whenever tokens start, go on or are
    read out, and it is looked up by the number of patches: two pictures whose grids are of different shape and equally
    many patches must not be read in turns by one thread.  Each thread has grids of its own.

    Args:
        width: d of a head.
        reference: (p_y, p_x), or None: positions are the patches' indices.
    """

    def __init__(
        self, width: int, reference: tuple[int, int] | None = (REFERENCE, REFERENCE), temperature: float = 1e4
    ):
        self.width, self.reference, self.temperature = width, reference, temperature
        self._own = PerThread()  # .grids: (h, w) by the number of patches

    @property
    def grids(self) -> dict[int, tuple[int, int]]:
        return vars(self._own).setdefault("grids", {})

    def use(self, grid: tuple[int, int]):
        self.grids[grid[0] * grid[1]] = tuple(grid)

    def __call__(self, x: Tensor, added: int = 0) -> Tensor:
        """Turn the patches' rows of x (B, heads, 1 + h·w + added, d); the last ``added`` have no place in the picture.

        Raises:
            ValueError: tokens of no grid that the tower has seen.
        """
        last = x.shape[2] - added
        grid = self.grids.get(last - 1)
        if grid is None:
            raise ValueError(
                f"a block of this tower was given {last} tokens, which are not a class token and the patches of "
                "a picture it has seen; tokens come from tower.start, whole."
            )
        cos, sin = rotations(grid, self.width, self.reference, self.temperature, x.device)
        patches = x[:, :, 1:last].float()
        turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], -1).flatten(-2)
        return torch.cat([x[:, :, :1], (patches * cos + turned * sin).to(x.dtype), x[:, :, last:]], 2)


class TappedEvaBlock:
    """timm's ``EvaBlock`` seen through its parts, as ``block.TappedBlock``.

    ``qkv`` gives queries and keys after RoPE, so every dense method that compares them compares turned ones; ``out``
    begins with the sub-LN.
    """

    has_residual = has_attention = True

    def __init__(self, block: EvaBlock, rotation: Rotation | None):
        self.block, self.rotation = block, rotation
        self.heads, self.scale = block.attn.num_heads, block.attn.scale

    def ln_1(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return self.block.norm2(x)

    def qkv(self, normed: Tensor, added: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (turned) and values of LN₁(x): three (B, heads, N, d) from (B, N, D).

        The last ``added`` tokens are none of the picture's and are not turned.
        """
        attention = self.block.attn
        if attention.qkv is None:
            parts = [layer(normed) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        else:
            biased = attention.q_bias is not None
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias]) if biased else attention.qkv.bias
            parts = F.linear(normed, attention.qkv.weight, bias).chunk(3, -1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        q, k = attention.q_norm(q), attention.k_norm(k)
        if self.rotation is None:
            return q, k, v
        return self.rotation(q, added), self.rotation(k, added), v

    def values(self, normed: Tensor) -> Tensor:
        """The values of ``qkv`` alone, (B, heads, N, d)."""
        return self.qkv(normed)[2]

    def out(self, values: Tensor) -> Tensor:
        """O(LN(·)): concatenate heads, normalize and project, (B, heads, N, d) → (B, N, D)."""
        attention = self.block.attn
        y = attention.proj(attention.norm(values.transpose(1, 2).flatten(2)))
        return y if self.block.gamma_1 is None else self.block.gamma_1 * y

    def ffn(self, x: Tensor) -> Tensor:
        """FFN(LN₂(x)), (B, N, D)."""
        y = self.block.mlp(self.block.norm2(x))
        return y if self.block.gamma_2 is None else self.block.gamma_2 * y

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        """The whole block for the token rows ``queries``; keys and values come from all rows of x (B, N, D)."""
        return self._run(x, queries, 0)

    def with_tokens(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The block for x (B, N, D), which also attends to ``tokens`` (B, M, D) that have no place in the picture."""
        return self._run(torch.cat([x, tokens], 1), slice(0, x.shape[1]), tokens.shape[1])

    def _run(self, x: Tensor, queries: slice, added: int) -> Tensor:
        q, k, v = self.qkv(self.ln_1(x), added)
        y = x[:, queries] + self.out(F.scaled_dot_product_attention(q[:, :, queries], k, v, scale=self.scale))
        return y + self.ffn(y)


@TOWERS.register_module(name="eva")
class EvaTower(TowerFamily):
    """An image module that wraps a timm ``Eva`` with a class token: open_clip's ``TimmModel``, or ``EvaVisual``.

    Raises:
        ValueError: an Eva that is not as described above (other pooling, registers, post-norm, other rotations).
    """

    family = "eva"

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        trunk, rope = visual.trunk, visual.trunk.rope
        plain = all(isinstance(block, EvaBlock) and isinstance(block.attn, EvaAttention) for block in trunk.blocks)
        plain = plain and all(block.attn.gate is None for block in trunk.blocks)
        table = trunk.pos_embed is None or not trunk.no_embed_class
        turns = rope is None or (
            isinstance(rope, RotaryEmbeddingCat)
            and (rope.in_pixels, rope.grid_offset, rope.grid_indexing, rope.rotate_half) == (False, 0, "ij", False)
        )
        if not (plain and table and turns and trunk.global_pool == "token" and trunk.num_prefix_tokens == 1):
            raise ValueError(
                f"{card.name}: of timm's Eva models those of EVA-CLIP can be opened, with pre-norm blocks, one class "
                "token that is the image embedding, and EVA-02's rotations; this one is built otherwise. Choose for "
                "example EVA02-B-16/merged2b_s8b_b131k or EVA02-L-14/merged2b_s4b_b131k."
            )
        self.rotation = None
        if rope is not None:
            reference = None if rope.ref_feat_shape is None else tuple(rope.ref_feat_shape)
            self.rotation = Rotation(trunk.blocks[0].attn.head_dim, reference, float(rope.temperature))
        self.blocks = [TappedEvaBlock(block, self.rotation) for block in trunk.blocks]
        self.stride, self.image_size = trunk.patch_embed.patch_size[0], as_size(trunk.patch_embed.img_size)
        self.table_grid = tuple(trunk.patch_embed.grid_size)
        self.width = trunk.embed_dim
        with torch.no_grad():
            self.embed_dim = self.project(trunk.norm_pre(trunk.cls_token)).shape[-1]
        square = {"square_grid"} if self.table_grid[0] == self.table_grid[1] else set()
        self.provides = frozenset({"attention", "attention_blocks", "class_token", "class_pooling"} | square)

    # --- the family -------------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, state, config):
        return f"{TRUNK}blocks.0.attn.k_proj.weight" in state

    @classmethod
    def opens(cls, visual):
        trunk = getattr(visual, "trunk", None)
        if not isinstance(trunk, Eva) or not isinstance(visual, TimmModel):
            return isinstance(trunk, Eva)
        block = trunk.blocks[0]
        return type(block) is EvaBlock and type(block.attn) is EvaAttention and trunk.global_pool == "token"

    @classmethod
    def vision_config(cls, state, config):
        """``{"eva": {heads, reference, eps}}``, and ``image_size`` where it is recorded."""
        return {key: config[key] for key in ("eva", "image_size") if key in config}

    @classmethod
    def attention_config(cls, state, heads, eps):
        own = {"heads": heads, "eps": eps}
        return {"eva": {key: value for key, value in own.items() if value is not None}}

    @classmethod
    def from_state(cls, state, config, quick_gelu, embed_dim=None):
        return eva_visual(state, **config.get("eva", {}), image_size=config.get("image_size"), embed_dim=embed_dim)

    def recorded_config(self):
        if self.card.config is not None:
            return dict(self.card.config["vision_cfg"])
        reference = None if self.rotation is None else self.rotation.reference
        own = {"eva": {"heads": self.blocks[0].heads, "reference": reference[0] if reference else None}}
        if self.image_size[0] != self.image_size[1]:
            own["image_size"] = as_recorded(self.image_size)
        return own

    def visual_parts(self):
        trunk = self.visual.trunk
        heads = (*self.visual.head.modules(), *trunk.head.modules())
        linear = next((layer for layer in heads if isinstance(layer, nn.Linear)), None)
        norms = tuple(module for module in trunk.modules() if isinstance(module, nn.LayerNorm))
        table = trunk.pos_embed is not None
        return Parts(
            modules=tuple(self.visual.modules()),
            attention=tuple(_attention_parts(block.attn) for block in trunk.blocks),
            feed_forward=tuple(
                Weight(layer) for b in trunk.blocks for layer in b.mlp.modules() if isinstance(layer, nn.Linear)
            ),
            blocks=tuple(trunk.blocks),
            norms=norms,
            positions=(Weight(trunk, "pos_embed"),) if table else (),
            projection=() if linear is None else weight_and_bias(linear),
            blank={"positions": "its patches know their place by rotations alone", "projection": "it has none"},
        )

    def resize_table(self, grid, mode):
        trunk, embed = self.visual.trunk, self.visual.trunk.patch_embed
        if trunk.pos_embed is not None:
            table = resize_positions(trunk.pos_embed[0], grid, mode, self.table_grid)
            trunk.pos_embed = nn.Parameter(table.detach().clone()[None])
        self.table_grid = embed.grid_size = tuple(grid)
        embed.num_patches = grid[0] * grid[1]
        self.image_size = embed.img_size = tuple(self.stride * length for length in grid)

    # --- the contract -----------------------------------------------------------------------------------------------

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        self._check(images)
        trunk = self.visual.trunk
        patches = trunk.patch_embed.proj(images.to(self.dtype))
        grid = tuple(patches.shape[-2:])
        x = trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2))
        x = torch.cat([trunk.cls_token.expand(len(x), -1, -1), x], 1)
        if trunk.pos_embed is not None:
            x = x + resize_positions(trunk.pos_embed[0], grid, positions, self.table_grid).to(x.dtype)
        self._turn(grid)
        return TokenState(trunk.norm_pre(x), grid, 0)

    def advance(self, state, stop, taps=()):
        self._turn(state.grid)
        return super().advance(state, stop, taps)

    def project(self, z: Tensor) -> Tensor:
        trunk = self.visual.trunk
        return self.visual.head(trunk.head(trunk.fc_norm(trunk.norm(z))))

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        self._turn(grid)
        return self.project(self.blocks[-1](x, slice(0, 1)))[:, 0]

    def _turn(self, grid: tuple[int, int]):
        if self.rotation is not None:
            self.rotation.use(grid)


class EvaVisual(nn.Module):
    """A timm ``Eva`` as an open_clip image module: (B, 3, H, W) of its native size → (B, E)."""

    def __init__(self, trunk: Eva):
        super().__init__()
        self.trunk, self.head = trunk, nn.Identity()
        self.image_size = trunk.patch_embed.img_size

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)


def _attention_parts(attention: EvaAttention) -> AttentionParts:
    if attention.qkv is None:
        q, k, v = (Weight(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
    else:
        q, k, v = fused(attention.qkv, "weight")
    return AttentionParts(q, k, v, Weight(attention.proj), modules=(attention,))


def eva_visual(
    state: dict[str, Tensor],
    heads: int | None = None,
    reference: int | None = REFERENCE,
    eps: float = 1e-6,
    image_size: int | tuple[int, int] | None = None,
    embed_dim: int | None = None,
) -> EvaVisual:
    """An untrained ``EvaVisual`` of the shapes of a state dict in timm's names (``visual.trunk.…``).

    Args:
        state: see ``formats.timm_names``.
        heads: of a block; None: heads are 64 wide, as in all EVA-02-CLIP weights.
        reference: p of the rotations; None: no rotations.
        eps: of the layer norms.
        image_size: (H, W) in pixels where the position table is not square.
        embed_dim: E; None: read off the shapes.

    Raises:
        ValueError: weights that are not whole.
    """
    block = f"{TRUNK}blocks.0."
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1_g.weight", "head.weight")
    absent = [name for name in needed if TRUNK + name not in state]
    if absent:
        raise ValueError(
            f"these weights of an EVA-02 image tower are not whole: {', '.join(absent)} missing (names as timm's). "
            "Expected the visual part of an EVA-CLIP, CLIPSelf or open_clip checkpoint."
        )
    _, rows, width = state[f"{TRUNK}pos_embed"].shape
    patch = state[f"{TRUNK}patch_embed.proj.weight"].shape[-1]
    grid = recorded_grid(rows - 1, image_size, patch)
    depth = len({key.split(".")[3] for key in state if key.startswith(f"{TRUNK}blocks.")})
    trunk = Eva(
        img_size=(patch * grid[0], patch * grid[1]),
        patch_size=patch,
        num_classes=embed_dim or len(state[f"{TRUNK}head.weight"]),
        global_pool="token",
        embed_dim=width,
        depth=depth,
        num_heads=heads or max(1, width // 64),
        qkv_bias=f"{block}attn.q_proj.bias" in state,
        qkv_fused=False,
        mlp_ratio=(state[f"{block}mlp.fc1_g.weight"].shape[0] + 0.5) / width,  # timm rounds down
        swiglu_mlp=True,
        swiglu_align_to=1,  # two matrices also where nothing is normalized between
        scale_mlp=f"{block}mlp.norm.weight" in state,
        scale_attn_inner=f"{block}attn.norm.weight" in state,
        norm_layer=partial(LayerNorm, eps=eps),
        use_rot_pos_emb=reference is not None,
        ref_feat_shape=reference,
    )
    return EvaVisual(trunk)
