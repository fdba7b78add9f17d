"""Pooling of regions: RoIAlign written out again, and what happens at and beyond the border."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from ovseg.regions import pool_boxes, pool_masks


def by_hand(image, box, bins=1, ratio=-1):
    """RoIAlign of one channel (h, w) and one box in cells, point by point."""
    h, w = image.shape
    x1, y1, x2, y2 = (v - 0.5 for v in box)
    out = np.zeros((bins, bins))
    high, wide = (y2 - y1) / bins, (x2 - x1) / bins
    ny, nx = (ratio if ratio > 0 else math.ceil(side) for side in (high, wide))
    for i, j in np.ndindex(bins, bins):
        for a, b in np.ndindex(ny, nx):
            y, x = y1 + (i + (a + 0.5) / ny) * high, x1 + (j + (b + 0.5) / nx) * wide
            if not (-1 <= y <= h and -1 <= x <= w):
                continue
            y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
            top, left = int(y), int(x)
            down, right = min(top + 1, h - 1), min(left + 1, w - 1)
            dy, dx = y - top, x - left
            out[i, j] += (1 - dy) * ((1 - dx) * image[top, left] + dx * image[top, right])
            out[i, j] += dy * ((1 - dx) * image[down, left] + dx * image[down, right])
        out[i, j] /= ny * nx
    return out


def maps(batch=2, channels=3, h=5, w=7, seed=0):
    return torch.randn(batch, channels, h, w, generator=torch.Generator().manual_seed(seed))


BOXES = [
    [0, 0, 7, 5],
    [1.2, 0.3, 3.9, 4.4],
    [2, 2, 3, 3],
    [3.1, 1.1, 3.2, 1.3],
    [-2.5, -1, 4, 9],
    [6.6, 4.7, 9, 6],
]


@pytest.mark.parametrize("bins", [1, 2, 3])
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2])
def test_boxes_by_hand(bins, ratio):
    x = maps(1)
    found = pool_boxes(x, [torch.tensor(BOXES)], (5, 7), bins, ratio)
    expected = np.array([[by_hand(c, box, bins, ratio) for c in x[0].numpy()] for box in BOXES])
    np.testing.assert_allclose(found.reshape(len(BOXES), 3, bins, bins), expected, rtol=1e-4, atol=1e-5)


def test_equal_to_torchvision_on_many_boxes():
    generator = torch.Generator().manual_seed(3)
    x = maps(2, 4, 9, 6)
    corner = torch.rand(2, 60, 2, generator=generator) * 20 - 8
    boxes = list(torch.cat([corner, corner + torch.rand(2, 60, 2, generator=generator) * 12], 2))
    for ratio in (-1, 3):
        expected = roi_align(x, boxes, 1, 1.0, ratio, aligned=True).flatten(1)
        torch.testing.assert_close(pool_boxes(x, boxes, (9, 6), 1, ratio), expected, atol=1e-5, rtol=1e-4)


def test_pixels_are_scaled_by_what_the_map_covers():
    x = maps(1)
    box = torch.tensor([[16.0, 8, 80, 48]])
    torch.testing.assert_close(pool_boxes(x, [box], (80, 112)), pool_boxes(x, [box / 16], (5, 7)))
    stretched = pool_boxes(x, [box * torch.tensor([2.0, 1, 2, 1])], (80, 224))
    torch.testing.assert_close(stretched, pool_boxes(x, [box], (80, 112)))


def test_a_constant_map_and_a_padded_border():
    x = torch.ones(1, 2, 4, 4)
    x[..., 3:] = 0  # padding on the right
    inside, across = pool_boxes(x, [torch.tensor([[0.0, 0, 40, 64], [32, 0, 64, 64]])], (64, 64))
    torch.testing.assert_close(inside, torch.ones(2))
    torch.testing.assert_close(across, torch.full((2,), 0.5))
    (half_out,) = pool_boxes(torch.ones(1, 2, 4, 4), [torch.tensor([[0.0, -64, 64, 64]])], (64, 64))
    assert (half_out < 0.7).all()  # beyond the picture there are zeros


@pytest.mark.parametrize(
    "box",
    [
        [3, 1, 3, 4],
        [3, 1, 5, 1],
        [2, 2, 2, 2],
        [5, 4, 1, 1],
        [100, 100, 120, 130],
        [-90, -90, -80, -80],
        [float("nan"), 0, 2, 2],
        [0, 0, float("inf"), 2],
        [-1e30, -1e30, 1e30, 1e30],
    ],
)
@pytest.mark.parametrize("bins", [1, 2])
def test_strange_boxes_are_finite_and_do_not_touch_others(box, bins):
    x = maps(1)
    good = torch.tensor([[1.0, 1, 4, 4]])
    found = pool_boxes(x, [torch.cat([torch.tensor([box]), good])], (5, 7), bins)
    assert found.isfinite().all()
    if max(map(abs, box)) != 1e30:
        assert (found[0] == 0).all()
    torch.testing.assert_close(found[1:], pool_boxes(x, [good], (5, 7), bins))


def test_nothing_to_pool():
    x, none = maps(2), [torch.zeros(0, 4)] * 2
    assert pool_boxes(x, none, (5, 7)).shape == (0, 3)
    assert pool_boxes(x, none, (5, 7), (2, 3)).shape == (0, 3, 2, 3)
    assert pool_masks(x, [torch.zeros(0, 5, 7)] * 2).shape == (0, 3)
    assert pool_boxes(maps(0), [], (5, 7)).shape == (0, 3)
    one = pool_boxes(x, [torch.zeros(0, 4), torch.tensor([[0.0, 0, 3, 3]])], (5, 7))
    torch.testing.assert_close(one, pool_boxes(x[1:], [torch.tensor([[0.0, 0, 3, 3]])], (5, 7)))


@pytest.mark.parametrize("bins", [1, 3])
def test_batch_is_loop_and_portions_are_the_whole(bins):
    x, boxes = maps(2), [torch.tensor(BOXES), torch.tensor(BOXES[:2])]
    whole = pool_boxes(x, boxes, (5, 7), bins)
    loop = torch.cat([pool_boxes(x[i : i + 1], boxes[i : i + 1], (5, 7), bins) for i in range(2)])
    torch.testing.assert_close(whole, loop)
    torch.testing.assert_close(whole, pool_boxes(x, boxes, (5, 7), bins, memory=1))


def test_gradients_reach_the_map():
    x = maps(1).requires_grad_()
    pool_boxes(x, [torch.tensor([[2.0, 1, 4, 3]])], (5, 7)).sum().backward()
    torch.testing.assert_close(x.grad.sum(), torch.tensor(3.0))  # the weights of each channel add up to one
    assert (x.grad[..., 5:] == 0).all()


def test_masks():
    x, generator = maps(2), torch.Generator().manual_seed(1)
    masks = [torch.rand(3, 5, 7, generator=generator) > 0.6, torch.rand(2, 5, 7, generator=generator) > 0.4]
    masks[0][1] = False
    found = pool_masks(x, masks)
    expected = [
        (x[i] * m).sum((1, 2)).numpy() / max(float(m.sum()), 1e-12) for i, each in enumerate(masks) for m in each
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[1] == 0).all()
    torch.testing.assert_close(found, pool_masks(x, masks, memory=1))
    soft = pool_masks(x, [masks[0] * 0.5, masks[1] * 0.25])
    torch.testing.assert_close(soft, found, atol=1e-5, rtol=1e-5)


def test_a_mean_of_unit_vectors_is_shorter():
    unit = F.normalize(maps(1, 8), dim=1)
    assert pool_boxes(unit, [torch.tensor([[0.0, 0, 7, 5]])], (5, 7)).norm() < 0.9


@pytest.mark.parametrize(
    "call",
    [
        lambda: pool_boxes(maps(2), [torch.zeros(1, 4)], (5, 7)),
        lambda: pool_boxes(maps(1), [torch.zeros(1, 5)], (5, 7)),
        lambda: pool_boxes(maps(1), [torch.zeros(4)], (5, 7)),
        lambda: pool_boxes(maps(1)[0], [torch.zeros(1, 4)], (5, 7)),
        lambda: pool_boxes(maps(1), [torch.zeros(1, 4)], (0, 7)),
        lambda: pool_boxes(maps(1), [torch.zeros(1, 4)], (5, 7), 0),
        lambda: pool_masks(maps(1), [torch.zeros(1, 7, 5)]),
    ],
)
def test_what_does_not_fit_is_told(call):
    with pytest.raises(ValueError, match="pool_"):
        call()
