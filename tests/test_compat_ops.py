"""The stand-in for mmcv's compiled operators: values and gradients, called as mmcv calls them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.autograd import gradcheck

import ovseg  # noqa: F401 - puts the stand-in in place before mmcv.ops
from ovseg.compat import install_mmcv_ops
from ovseg.compat.mmcv_ops import StandIn, mmcv_ops_kind

ROOT = Path(__file__).parents[1]

if mmcv_ops_kind() != "stand-in":
    pytest.skip("this mmcv has operators of its own", allow_module_level=True)

import mmcv.ops as ops  # noqa: E402
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_boxes(n: int, extent: float = 40, dtype=torch.float32) -> torch.Tensor:
    corner, side = torch.rand(n, 2, dtype=dtype) * extent, torch.rand(n, 2, dtype=dtype) * extent / 2 + 1
    return torch.cat([corner, corner + side], 1)


def close(*pair, **tolerance):
    torch.testing.assert_close(*pair, **tolerance)


# ------------------------------------------------------------------------------------------------------------------ nms


def test_nms_documented_example():
    boxes = np.array(
        [
            [49.1, 32.4, 51.0, 35.9],
            [49.3, 32.9, 51.0, 35.3],
            [49.2, 31.8, 51.0, 35.4],
            [35.1, 11.5, 39.1, 15.7],
            [35.6, 11.8, 39.3, 14.2],
            [35.3, 11.5, 39.9, 14.5],
            [35.2, 11.7, 39.7, 15.7],
        ],
        np.float32,
    )
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.4, 0.3], np.float32)
    dets, kept = ops.nms(boxes, scores, 0.6)
    assert len(kept) == len(dets) == 3
    np.testing.assert_array_equal(dets[:, :4], boxes[kept])


def greedy(boxes, scores, threshold, offset):
    """Non-maximum suppression by definition."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if iou(boxes[best], boxes[i], offset) <= threshold]
    return kept


def iou(a, b, offset=0):
    w = min(a[2], b[2]) - max(a[0], b[0]) + offset
    h = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(w, 0) * max(h, 0)
    area = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return inter / (sum(area) - inter) if inter else 0.0


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_nms_is_greedy_suppression(offset, threshold):
    boxes, scores = random_boxes(60), torch.rand(60)
    _, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == greedy(boxes.tolist(), scores.tolist(), threshold, offset)


def test_nms_takes_no_boxes_half_precision_and_score_limits():
    _, kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.dtype == torch.long and len(kept) == 0
    boxes, scores = random_boxes(20).bfloat16(), torch.rand(20)
    _, kept = ops.nms(boxes, scores, 0.5, score_threshold=0.4, max_num=3)
    assert len(kept) == 3 and bool((scores[kept] > 0.4).all())


def test_batched_nms_keeps_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9.9]])
    dets, kept = ops.batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0]), {"iou_threshold": 0.5})
    assert kept.tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------- soft-nms


def soft(boxes, scores, threshold, sigma, min_score, method, offset):
    """Soft-NMS by definition, one box at a time; no ties expected."""
    scores, left, kept = list(scores), list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append((best, scores[best]))
        for i in left:
            overlap = iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                scores[i] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                scores[i] *= 1 - overlap if method == "linear" else 0
        left = [i for i in left if scores[i] >= min_score]
    return kept


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_soft_nms_is_the_loop(method, offset):
    boxes, scores = random_boxes(50), torch.rand(50)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    expected = soft(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == [index for index, _ in expected]
    close(dets[:, 4], torch.tensor([score for _, score in expected]), rtol=1e-5, atol=1e-6)
    close(dets[:, :4], boxes[kept])


def test_soft_nms_documented_example():
    boxes = np.array([[4, 3, 5, 3], [4, 3, 5, 4]] + [[3, 1, 3, 1]] * 4, np.float32)
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], np.float32)
    for method in ("naive", "linear", "gaussian"):
        dets, kept = ops.soft_nms(boxes, scores, 0.6, sigma=0.5, method=method)
        assert len(kept) == len(dets) == 5 and np.isfinite(dets).all()
    dets, kept = ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and len(kept) == 0


def test_soft_nms_replaces_a_dropped_box_by_the_last():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    _, kept = ops.soft_nms(boxes, torch.tensor([0.9, 0.8, 0.5, 0.5, 0.5]), 0.3, method="naive")
    assert kept.tolist() == [0, 4, 2, 3]


# ------------------------------------------------------------------------------------------------ overlaps and RoIAlign


def test_bbox_overlaps():
    one = torch.tensor([[0.0, 0, 10, 10], [10, 10, 20, 20], [32, 32, 38, 42]])
    two = torch.tensor([[0.0, 0, 10, 20], [0, 10, 10, 19], [10, 10, 20, 20]])
    close(ops.bbox_overlaps(one, two), torch.tensor([[0.5, 0, 0], [0, 0, 1], [0, 0, 0]]))
    close(ops.bbox_overlaps(one, two, aligned=True), torch.tensor([0.5, 0, 0]))
    close(ops.bbox_overlaps(one, two, mode="iof")[0], torch.tensor([1.0, 0, 0]))
    boxes, others = random_boxes(7), random_boxes(5)
    close(ops.bbox_overlaps(boxes, others), torchvision.ops.box_iou(boxes, others))
    expected = torch.tensor([[iou(a, b, 1) for b in others.tolist()] for a in boxes.tolist()])
    close(ops.bbox_overlaps(boxes, others, offset=1), expected)


@pytest.mark.parametrize("aligned, expected", [(True, [1, 1.25, 1.5, 1.75]), (False, [1.75, 2.25, 2.75, 3.25])])
def test_roi_align_small_example(aligned, expected):
    image, rois = torch.tensor([[[[1.0, 2], [3, 4]]]]), torch.tensor([[0.0, 0, 0, 1, 1]])
    close(ops.roi_align(image, rois, (2, 2), 1.0, 2, "avg", aligned).flatten(), torch.tensor(expected))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_is_torchvisions(ratio, aligned):
    rois = torch.cat([torch.tensor([[0.0], [1], [1]]), random_boxes(3)], 1)
    grad = torch.randn(3, 4, 3, 5)
    results = []
    for run in (
        lambda x: ops.roi_align(x, rois, (3, 5), 0.5, ratio, "avg", aligned),
        lambda x: torchvision.ops.roi_align(x, rois, (3, 5), 0.5, ratio, aligned),
    ):
        x = torch.randn(2, 4, 20, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = run(x)
        results.append((out, *torch.autograd.grad(out, x, grad)))
    close(*results)


def test_roi_align_half_precision_and_max_mode():
    x, rois = torch.randn(1, 2, 8, 8), torch.tensor([[0.0, 1, 1, 6, 6]])
    out = ops.roi_align(x.bfloat16(), rois.bfloat16(), (2, 2))
    assert out.dtype == torch.bfloat16
    close(out.float(), ops.roi_align(x, rois, (2, 2)), rtol=0.02, atol=0.02)
    with pytest.raises(RuntimeError, match="pool_mode='avg'"):
        ops.roi_align(x, rois, (2, 2), 1.0, 2, "max")


# ----------------------------------------------------------------------------------------------------------- focal loss


@pytest.mark.parametrize("gamma, alpha", [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_focal_loss_is_torchvisions(gamma, alpha):
    target = torch.tensor([0, 2, 3, 1, 3])  # 3 of 3 classes: background
    one_hot = F.one_hot(target, 4)[:, :3].float()
    results = []
    for run in (
        lambda x: ops.sigmoid_focal_loss(x, target, gamma, alpha, None, "none"),
        lambda x: torchvision.ops.sigmoid_focal_loss(x, one_hot, alpha, gamma, "none"),
    ):
        x = (3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(2))).requires_grad_()
        out = run(x)
        results.append((out, *torch.autograd.grad(out.sum(), x)))
    close(*results)


def test_focal_loss_class_weight_and_reduction():
    x, target, weight = torch.randn(4, 3), torch.tensor([0, 2, 3, 2]), torch.tensor([2.0, 3, 5])
    plain = ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    rows = torch.tensor([2.0, 5, 1, 5])[:, None]  # the weight of a row's target class; background has none
    close(ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, "none"), plain * rows)
    close(ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, "mean"), (plain * rows).sum() / 4)
    x = x.double().requires_grad_()
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight.double(), "sum"), x)


def test_focal_loss_stays_finite_far_out():
    x = torch.tensor([[200.0, -200.0]]).requires_grad_()
    out = ops.sigmoid_focal_loss(x, torch.tensor([1]), 2.0, 0.25, None, "sum")
    out.backward()
    assert out.isfinite() and x.grad.isfinite().all()


# ----------------------------------------------------------------------------------------------- deformable convolution

GEOMETRY = [  # kernel, stride, padding, dilation, groups, offset groups
    ((3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    ((3, 2), (2, 1), (1, 0), (1, 2), 2, 2),
]


def deform_inputs(kernel, stride, padding, dilation, groups, offsets, dtype):
    x = torch.randn(2, 4, 7, 6, dtype=dtype)
    weight = torch.randn(4, 4 // groups, *kernel, dtype=dtype)
    size = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    taps = offsets * kernel[0] * kernel[1]
    # Offsets keep away from whole numbers, where bilinear sampling has a kink.
    offset = torch.randint(-1, 2, (2, 2 * taps, *size)).to(dtype) + 0.3
    return x, offset, weight, torch.rand(2, taps, *size, dtype=dtype), torch.randn(4, dtype=dtype)


@pytest.mark.parametrize("geometry", GEOMETRY)
def test_deform_conv_values_and_gradients(geometry):
    kernel, *rest = geometry
    x, offset, weight, mask, bias = deform_inputs(*geometry, torch.float64)
    stride, padding, dilation, groups, offsets = rest
    close(
        ops.deform_conv2d(x, torch.zeros_like(offset), weight, *rest),
        F.conv2d(x, weight, None, stride, padding, dilation, groups),
    )
    reference = torchvision.ops.deform_conv2d
    close(ops.deform_conv2d(x, offset, weight, *rest), reference(x, offset, weight, None, *rest[:3]))
    modulated = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *rest)
    close(modulated, reference(x, offset, weight, bias, *rest[:3], mask))

    leaves = [t.requires_grad_() for t in (x, offset, weight, mask, bias)]
    x, offset, weight, mask, bias = leaves
    plain = [x, offset, weight]
    grad = torch.randn_like(modulated)
    close(
        torch.autograd.grad(ops.deform_conv2d(*plain, *rest), plain, grad),
        torch.autograd.grad(reference(*plain, None, *rest[:3]), plain, grad),
    )
    close(
        torch.autograd.grad(ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *rest), leaves, grad),
        torch.autograd.grad(reference(x, offset, weight, bias, *rest[:3], mask), leaves, grad),
    )
    assert gradcheck(lambda o: ops.deform_conv2d(x, o, weight, *rest), offset)


def test_deform_conv_layers_train():
    x = torch.randn(1, 4, 6, 6)
    for layer in (ops.DeformConv2dPack, ops.ModulatedDeformConv2dPack):
        layer = layer(4, 4, 3, padding=1, bias=False)
        layer(x).square().sum().backward()
        assert layer.weight.grad.abs().sum() > 0 and layer.conv_offset.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------- deformable attention


def attention_inputs(dtype):
    shapes = torch.tensor([[5, 4], [2, 3]])
    starts = torch.tensor([0, 20])
    value = torch.randn(2, 26, 3, 4, dtype=dtype)
    locations = torch.rand(2, 6, 3, 2, 2, 2, dtype=dtype) * 1.2 - 0.1
    weights = torch.rand(2, 6, 3, 4, dtype=dtype).softmax(-1).unflatten(-1, (2, 2))
    return value, shapes, starts, locations, weights


def test_deformable_attention_values():
    value, shapes, starts, locations, weights = attention_inputs(torch.float32)
    out = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    close(out, multi_scale_deformable_attn_pytorch(value, shapes, locations, weights))

    # One query by hand: bilinear reading at (x, y) * size - 0.5, zeros outside.
    b, q, m, expected = 1, 4, 2, torch.zeros(4)
    for level, (h, w) in enumerate(shapes.tolist()):
        grid = value[b, starts[level] :][: h * w, m].view(h, w, 4)
        for point in range(2):
            x, y = (locations[b, q, m, level, point] * torch.tensor([w, h]) - 0.5).tolist()
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < h and 0 <= j < w:
                        share = (1 - abs(y - i)) * (1 - abs(x - j))
                        expected += weights[b, q, m, level, point] * share * grid[i, j]
    close(out[b, q].view(3, 4)[m], expected)


def test_deformable_attention_gradients():
    value, shapes, starts, locations, weights = attention_inputs(torch.float64)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    grad = torch.randn(2, 6, 12, dtype=torch.float64)
    results = [
        torch.autograd.grad(run, leaves, grad)
        for run in (
            MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64),
            multi_scale_deformable_attn_pytorch(value, shapes, locations, weights),
        )
    ]
    close(*results)


# ----------------------------------------------------------------------------------------------------------- the module


def test_unknown_operators_raise_one_sentence():
    with pytest.raises(RuntimeError, match="'nms_match'.*does not provide.*choose a model"):
        ops.nms_match(np.array([[0, 0, 1, 1, 0.5]], np.float32), 0.5)
    module = sys.modules["mmcv._ext"]
    assert module.__spec__.name == "mmcv._ext" and module.nms is module.nms
    for name in ("__path__", "__wrapped__", "_repr_html_"):
        assert not hasattr(module, name)
    assert "torchvision" in ops.get_compiler_version()


def test_installing_again_changes_nothing():
    before = sys.modules["mmcv._ext"]
    assert isinstance(before, StandIn) and install_mmcv_ops() == "stand-in"
    assert sys.modules["mmcv._ext"] is before


def run_python(code: str, *paths: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_importing_ovseg_loads_neither_torch_nor_mmcv():
    code = "import ovseg, sys; print({'torch', 'torchvision', 'mmcv', 'mmengine', 'numpy'} & set(sys.modules))"
    assert run_python(code).strip() == "set()"


@pytest.mark.parametrize("real, kind", [("_ext.py", "compiled"), ("_ext/__init__.py", "compiled"), (None, "stand-in")])
def test_a_real_extension_is_left_alone(tmp_path, real, kind):
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    if real:
        (package / real).parent.mkdir(exist_ok=True)
        (package / real).write_text("real = True")
    code = "from ovseg.compat import install_mmcv_ops as i; print(i()); import mmcv._ext as e; print(type(e).__name__)"
    name = "module" if real else "StandIn"
    assert run_python(code, tmp_path).split() == [kind, name]


def test_mmcv_ops_imported_too_early(tmp_path):
    package = tmp_path / "mmcv" / "ops"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    out = run_python("import mmcv.ops; import ovseg", tmp_path)
    assert "RuntimeError: mmcv.ops was imported before ovseg" in out and "write `import ovseg` above" in out


def test_placeholders_bound_too_early_are_named(tmp_path):
    for name in ("mmcv", "mmdet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    source = "try:\n    from mmcv.ops import nms\nexcept ImportError:\n    nms = None\n"
    (tmp_path / "mmdet" / "heads.py").write_text(source)
    out = run_python("import mmdet.heads; import ovseg", tmp_path)
    assert "RuntimeWarning: mmdet.heads" in out and "write `import ovseg` above" in out
