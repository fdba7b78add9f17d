"""EfficientNet-Lite as it is trained: batch norm folded away, the stem and first stages fixed, phases for dilation.

Batch norm is fixed, so each convolution takes it in: W' = s·W, b' = β − s·μ with s = γ/√(σ² + ε); ``unfold`` puts W
and β back.  Trained are the 1×1 convolutions and all biases of the later stages; depthwise kernels stay the teacher's
(their gradients would cost most of the time).  Where the last stride is taken away, the stages behind it would be
dilated by 2: they run on the four phases of the grid instead, which is the same sum, and the phases are put together
at the end.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DTYPE = torch.bfloat16


class Conv(nn.Module):
    """A 1×1 or depthwise convolution with its batch norm folded in."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module):
        super().__init__()
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        weight = conv.weight.detach() * scale[:, None, None, None]
        self.depthwise, self.kernel, self.stride = conv.groups > 1, conv.kernel_size[0], conv.stride[0]
        self.weight = nn.Parameter(weight if self.depthwise else weight.flatten(1), requires_grad=not self.depthwise)
        self.bias = nn.Parameter(norm.bias.detach() - norm.running_mean * scale)

    def forward(self, x: Tensor, stride: int | None = None) -> Tensor:
        """(B, H, W, C) → (B, H', W', C'), bfloat16; padding as TensorFlow's SAME for even sides."""
        weight, bias = self.weight.to(DTYPE), self.bias.to(DTYPE)
        if not self.depthwise:
            return F.linear(x, weight, bias)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, None, 1, self.kernel // 2, groups=len(weight)).permute(0, 2, 3, 1)
        if (self.stride if stride is None else stride) == 2:
            y = y[:, 1::2, 1::2]  # computed everywhere: a strided kernel's backward pass takes ten times as long
        return y + bias  # apart: with a bias, the kernel's gradient would be computed too

    def unfold(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """The convolution's weight and β of its batch norm."""
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = self.weight if self.depthwise else self.weight[:, :, None, None]
        return weight / scale[:, None, None, None], self.bias + norm.running_mean * scale


class Block(nn.Module):
    """Inverted residual: 1×1, depthwise, 1×1."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.expand = Conv(block.conv_pw, block.bn1)
        self.depth = Conv(block.conv_dw, block.bn2)
        self.project = Conv(block.conv_pwl, block.bn3)
        self.residual = block.has_skip

    def forward(self, x: Tensor, stride: int | None = None) -> Tensor:
        y = F.relu6(self.depth(F.relu6(self.expand(x)), stride))
        return self.project(split(y) if stride else y) + (x if self.residual else 0)


def split(x: Tensor) -> Tensor:
    """(B, H, W, C) → its four phases (4B, H/2, W/2, C)."""
    return torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def merge(x: Tensor) -> Tensor:
    """The inverse of ``split``."""
    b, h, w, c = x.shape
    return x.view(2, 2, b // 4, h, w, c).permute(2, 3, 0, 4, 1, 5).reshape(b // 4, 2 * h, 2 * w, c)


def fused(trunk: nn.Module, first: int) -> nn.Sequential:
    """The stem and the stages below ``first`` for inference alone: batch norm folded in, weights in ``DTYPE``."""
    trunk = copy.deepcopy(trunk)
    owners = [(trunk, ("conv_stem", "bn1"))]
    for block in (block for stage in trunk.blocks[:first] for block in stage):
        separable = not hasattr(block, "conv_pwl")
        pairs = (("conv_dw", "bn1"), ("conv_pw", "bn2")) if separable else (
            ("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")
        )  # fmt: skip
        owners += [(block, pair) for pair in pairs]
    for owner, (conv_name, norm_name) in owners:
        conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight.data = conv.weight * scale[:, None, None, None]
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)
        setattr(owner, norm_name, norm.act)
    layers = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:first])
    return layers.requires_grad_(False).to(DTYPE).to(memory_format=torch.channels_last)


class FoldedTrunk(nn.Module):
    """(B, 3, H, W) normalized, sides multiples of 32 → (B, h, w, 1280) before pooling.

    Args:
        trunk: timm's EfficientNet-Lite in evaluation mode.
        first: number of the first stage that is trained.
    """

    def __init__(self, trunk: nn.Module, first: int = 3):
        super().__init__()
        self.trunk, self.first = trunk.eval().requires_grad_(False), first
        self.below = (fused(trunk, first),)  # in a tuple: no part of the state
        self.stages = nn.ModuleList(nn.ModuleList(map(Block, stage)) for stage in trunk.blocks[first:])
        self.head = Conv(trunk.conv_head, trunk.bn2)

    def trained(self) -> list[nn.Parameter]:
        return [p for part in (self.stages, self.head) for p in part.parameters() if p.requires_grad]

    @torch.no_grad()
    def fixed(self, images: Tensor) -> Tensor:
        """The stages that are not trained: (B, h, w, C)."""
        x = images.to(DTYPE).contiguous(memory_format=torch.channels_last)
        return self.below[0](x).permute(0, 2, 3, 1)

    def forward(self, x: Tensor, stride: int = 32) -> Tensor:
        """From what ``fixed`` gives to (B, h, w, 1280) at output stride 16 or 32."""
        for number, stage in enumerate(self.stages, self.first):
            for index, block in enumerate(stage):
                x = block(x, 1 if stride == 16 and number == 5 and index == 0 else None)
        x = F.relu6(self.head(x))
        return merge(x) if stride == 16 else x

    @torch.no_grad()
    def unfold(self) -> dict[str, Tensor]:
        """The state of timm's trunk with what was trained."""
        state = {name: value.clone() for name, value in self.trunk.state_dict().items() if "classifier" not in name}
        for number, stage in enumerate(self.stages, self.first):
            for index, block in enumerate(stage):
                theirs, name = self.trunk.blocks[number][index], f"blocks.{number}.{index}"
                parts = ((block.expand, "conv_pw", "bn1"), (block.depth, "conv_dw", "bn2"))
                for conv, weight, norm in (*parts, (block.project, "conv_pwl", "bn3")):
                    values = conv.unfold(getattr(theirs, norm))
                    state[f"{name}.{weight}.weight"], state[f"{name}.{norm}.bias"] = values
        state["conv_head.weight"], state["bn2.bias"] = self.head.unfold(self.trunk.bn2)
        return state
