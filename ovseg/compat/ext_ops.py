"""The operators behind the stand-in for ``mmcv._ext``, on torchvision and plain PyTorch.

Each function takes the arguments with which mmcv 2 calls its compiled operator of that name, and the same conventions:
results are written to buffers of the caller, gradients are accumulated, scratch buffers are not touched.
Tensors may be on any device that torchvision supports; half precision is computed in float32 and rounded at the end.

Boxes are (x1, y1, x2, y2) in pixels; with ``offset`` 1 a box ends after the pixel x2, with 0 at the coordinate x2.
"""

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


def widened(*tensors: Tensor) -> list[Tensor]:
    """Detached tensors, all in the dtype of the first, or in float32 if that is a half precision."""
    dtype = tensors[0].dtype if tensors[0].dtype in (torch.float32, torch.float64) else torch.float32
    return [tensor.detach().to(dtype) for tensor in tensors]


def add_gradients(function, inputs: list[Tensor], grad_output: Tensor, buffers: list[Tensor]) -> None:
    """Add the gradients of ``function(*inputs)``, for the output gradient, to one buffer per input."""
    with torch.enable_grad():
        leaves = [tensor.requires_grad_() for tensor in widened(*inputs)]
        output = function(*leaves)
    gradients = torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
    for buffer, gradient in zip(buffers, gradients, strict=True):
        buffer.add_(gradient)


# ---------------------------------------------------------------------------------------------------------------- boxes


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices, best score first, of the boxes (N, 4) that overlap no better selected box with IoU >
    ``iou_threshold``."""
    boxes, scores = widened(boxes, scores)
    return torchvision.ops.nms(boxes + boxes.new_tensor([0, 0, offset, offset]), scores, iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int = 0,
) -> Tensor:
    """Soft-NMS on the CPU (Bodla et al., ICCV 2017): decay the scores of overlapping boxes instead of dropping them.

    A box with overlap o to the box just selected has its score multiplied by 0 (``method`` 0) or 1 - o (1) where
    o >= ``iou_threshold``, or by exp(-o^2 / ``sigma``) everywhere (2), and is removed when it falls below
    ``min_score``. Returns the K indices in the order of selection; rows 0..K-1 of ``dets`` (N, 5) receive the boxes and
    final scores.
    """
    x1, y1, x2, y2 = box = boxes.detach().float().numpy().T
    score = scores.detach().float().numpy().copy()
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    order = np.arange(len(score))
    step, count = 0, len(order)
    while step < count:
        best = step + int(score[order[step:count]].argmax())
        order[[step, best]] = order[[best, step]]
        top, rest = order[step], order[step + 1 : count]
        width = np.minimum(x2[top], x2[rest]) - np.maximum(x1[top], x1[rest]) + offset
        height = np.minimum(y2[top], y2[rest]) - np.maximum(y1[top], y1[rest]) + offset
        inter = width.clip(0) * height.clip(0)
        overlap = inter / np.maximum(area[top] + area[rest] - inter, np.finfo(np.float32).tiny)
        if method == 2:
            score[rest] *= np.exp(-(overlap**2) / sigma)
        else:
            score[rest] *= np.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0, 1)
        # A box that leaves is replaced by the last one that stays; mmcv does so, and ties are decided by that order.
        stays = score[rest] >= min_score
        size = int(stays.sum())
        rest[:size][~stays[:size]] = rest[size:][stays[size:]][::-1]
        step, count = step + 1, step + 1 + size
    selected = torch.from_numpy(order[:count])
    dets[:count, :4] = torch.from_numpy(box.T)[selected].to(dets.dtype)
    dets[:count, 4] = torch.from_numpy(score)[selected].to(dets.dtype)
    return selected


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int = 0) -> None:
    """Fill ``ious`` with IoU (``mode`` 0) or intersection over the first box (1): (M, N), or (N,) where ``aligned``."""
    one, two = widened(boxes1, boxes2)
    if not aligned:
        one = one[:, None]
    sides = torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2]) + offset
    inter = sides.clamp(min=0).prod(-1)
    area1, area2 = ((box[..., 2:] - box[..., :2] + offset).prod(-1) for box in (one, two))
    ious.copy_(inter / (area1 if mode == 1 else area1 + area2 - inter))


# ------------------------------------------------------------------------------------------------------------- RoIAlign


def average_pooling(pool_mode: int) -> None:
    if pool_mode != 1:
        raise RuntimeError(
            "RoIAlign with pool_mode='max' needs the compiled operators of mmcv, as torchvision only averages: "
            "use pool_mode='avg'"
        )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (R, C, h, w) from ``input`` (B, C, H, W) and ``rois`` (R, 5), whose first column is the image."""
    average_pooling(pool_mode)
    input, rois = widened(input, rois)
    size = (aligned_height, aligned_width)
    output.copy_(torchvision.ops.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to ``grad_input`` (B, C, H, W) what ``grad_output`` (R, C, h, w) gives back."""
    average_pooling(pool_mode)
    grad_output, rois = widened(grad_output, rois)
    size = (aligned_height, aligned_width)
    backward = torch.ops.torchvision._roi_align_backward
    grad_input.add_(backward(grad_output, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned))


# ----------------------------------------------------------------------------------------------------------- focal loss


def signed_logits(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of each logit (N, C): sign (+1 for the target class), logit times sign, and its factor in the loss.

    A target outside 0..C-1 is background: all its logits are negatives, and the class ``weight`` does not apply.
    """
    classes = input.shape[1]
    positive = target[:, None] == torch.arange(classes, device=target.device)
    sign = torch.where(positive, 1.0, -1.0).to(input.dtype)
    factor = torch.where(positive, alpha, 1 - alpha).to(input.dtype)
    if weight.numel():
        known = (target >= 0) & (target < classes)
        factor = factor * torch.where(known, weight.to(input.dtype)[target.clamp(0, classes - 1)], 1)[:, None]
    return sign, input * sign, factor


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss (Lin et al., ICCV 2017): fill ``output`` (N, C) with -a (1 - p)^gamma log p.

    p is the probability given to the right answer, a = ``alpha`` for the target class and 1 - ``alpha`` for the others.
    """
    (logits,) = widened(input)
    _, z, factor = signed_logits(logits, target, weight, alpha)
    output.copy_(-factor * torch.sigmoid(-z) ** gamma * F.logsigmoid(z))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of each element of the loss."""
    (logits,) = widened(input)
    sign, z, factor = signed_logits(logits, target, weight, alpha)
    p, q = torch.sigmoid(z), torch.sigmoid(-z)
    grad_input.copy_(-sign * factor * q**gamma * (q - gamma * p * F.logsigmoid(z)))


# ----------------------------------------------------------------------------------------------- deformable convolution


def deform_conv(geometry: dict):
    """The convolution as a function of (input, offset, weight[, mask[, bias]]); group counts follow from the shapes.

    ``geometry`` holds mmcv's keywords, which DCN and DCNv2 spell differently.
    """
    names = ("dH dW", "padH padW", "dilationH dilationW")
    if "stride_h" in geometry:
        names = ("stride_h stride_w", "pad_h pad_w", "dilation_h dilation_w")
    stride, padding, dilation = ([geometry[name] for name in pair.split()] for pair in names)

    def run(input, offset, weight, mask=None, bias=None):
        return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)

    return run


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry
) -> None:
    """Deformable convolution (Dai et al., ICCV 2017): fill ``output`` (B, C_out, H_out, W_out)."""
    output.copy_(deform_conv(geometry)(*widened(input, offset, weight)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry,
) -> None:
    """Add to the gradients of input and offset."""
    run, (weight,) = deform_conv(geometry), widened(weight)
    add_gradients(lambda x, o: run(x, o, weight.to(x.dtype)), [input, offset], grad_output, [grad_input, grad_offset])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1,
    **geometry,
) -> None:
    """Add ``scale`` times the gradient of the weight."""
    run, (input, offset) = deform_conv(geometry), widened(input, offset)
    weight = torch.zeros_like(grad_weight)  # the output is linear in the weight: any value has the same gradient
    add_gradients(lambda w: run(input.to(w.dtype), offset.to(w.dtype), w), [weight], scale * grad_output, [grad_weight])


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry,
) -> None:
    """Modulated deformable convolution, DCNv2 (Zhu et al., CVPR 2019): fill ``output`` (B, C_out, H_out, W_out)."""
    tensors = [input, offset, weight, mask] + [bias] * with_bias
    output.copy_(deform_conv(geometry)(*widened(*tensors)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry,
) -> None:
    """Add to the gradients of input, offset, weight, mask and, where there is one, bias."""
    tensors = [input, offset, weight, mask] + [bias] * with_bias
    buffers = [grad_input, grad_offset, grad_weight, grad_mask] + [grad_bias] * with_bias
    add_gradients(deform_conv(geometry), tensors, grad_output, buffers)


# ------------------------------------------------------------------------------------------------- deformable attention


def sampled_attention(shapes: Tensor, starts: Tensor):
    """Multi-scale deformable attention (Zhu et al., ICLR 2021) as a function of (value, locations, weights).

    value (B, S, M, D) holds the levels one after the other, ``shapes`` (L, 2) their heights and widths, ``starts``
    (L,) their first rows; locations (B, Q, M, L, P, 2) are (x, y) in [0, 1]; weights (B, Q, M, L, P).

    Returns (B, Q, M * D).
    """

    def run(value, locations, weights):
        maps = value.permute(0, 2, 3, 1).flatten(0, 1)
        grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
        shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
        total = 0
        for (height, width), start, grid, share in zip(shapes.tolist(), starts.tolist(), grids, shares, strict=True):
            level = maps[:, :, start : start + height * width].unflatten(-1, (height, width))
            total = total + (F.grid_sample(level, grid, align_corners=False) * share[:, None]).sum(-1)
        return total.unflatten(0, (len(value), -1)).flatten(1, 2).transpose(1, 2).contiguous()

    return run


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, im2col_step: int
) -> Tensor:
    """The attended values (B, Q, M * D); shapes as in :func:`sampled_attention`."""
    return sampled_attention(shapes, starts)(*widened(value, locations, weights)).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """Add to the gradients of value, locations and weights."""
    buffers = [grad_value, grad_locations, grad_weights]
    add_gradients(sampled_attention(shapes, starts), [value, locations, weights], grad_output, buffers)


# ---------------------------------------------------------------------------------------------------------- environment


def get_compiler_version() -> str:
    """Printed in environment reports as "MMCV Compiler"."""
    return "none (ovseg's stand-in on torchvision)"


def get_compiling_cuda_version() -> str:
    """Printed in environment reports as "MMCV CUDA Compiler"."""
    return "none (ovseg's stand-in on torchvision)"


OPERATORS = {
    operator.__name__: operator
    for operator in (
        nms,
        softnms,
        bbox_overlaps,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        deform_conv_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        modulated_deform_conv_forward,
        modulated_deform_conv_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
