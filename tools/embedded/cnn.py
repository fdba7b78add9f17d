"""open_clip's convolutional towers (``timm_model_name``) read densely.

    f(p) = proj( head(p) ),     head(p) = act(bn(conv_head(x)))(p),     image embedding = mean over p of f(p)

Average pooling and a linear projection commute, so every position has a place in the joint space.  ``dilate`` takes
strides out of the last stages and dilates what follows, so that positions lie closer (output stride 16 or 8) and see
what they saw in training.  There is no attention: the head is the one block.
"""

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn


def dilate(trunk: nn.Module, stride: int) -> nn.Module:
    """Change ``trunk`` in place to the output stride ``stride`` (8, 16 or 32): à trous convolutions.

    Convolutions are visited in the order in which they run; those on a shortcut beside a strided one have its kernel 1
    and take its stride away with it.
    """
    reached, dilation = 1, 1
    for conv in (module for module in trunk.modules() if isinstance(module, nn.Conv2d)):
        if conv.kernel_size[0] == 1:
            if conv.stride[0] > 1 and dilation > 1:
                conv.stride = (1, 1)
            continue
        before = dilation
        if conv.stride[0] > 1:
            if reached < stride:
                reached *= conv.stride[0]
            else:
                dilation *= conv.stride[0]
                conv.stride = (1, 1)
        if before > 1:
            conv.dilation = (before, before)
        if conv.padding not in ((0, 0), "same") and (before > 1 or dilation > before):
            conv.padding = tuple(before * (k - 1) // 2 for k in conv.kernel_size)
    return trunk


class DenseCNN(nn.Module):
    """A ``TimmModel`` with average pooling and a linear projection, read at every position.

    Args:
        visual: the image tower; its strides are changed in place.
        stride: output stride.
    """

    def __init__(self, visual: TimmModel, stride: int = 16):
        super().__init__()
        self.visual, self.stride = visual.eval(), stride
        dilate(visual.trunk, stride)
        visual.to(memory_format=torch.channels_last)

    def stage(self, images: Tensor) -> Tensor:
        """The last feature map (B, D, h, w). ``images``: (B, 3, H, W), normalized."""
        return self.visual.trunk.forward_features(images.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Image embedding (B, E) and features (B, E, h, w), both not normalized."""
        features = self.visual.head(self.stage(images).permute(0, 2, 3, 1))
        return features.mean((1, 2)), features.permute(0, 3, 1, 2)
