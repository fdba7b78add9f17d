"""Refiners, their equations derived again in numpy."""

import numpy as np
import pytest
import torch

from ovseg.refine import PAMR


def numpy_pamr(image, maps, steps, dilations):
    height, width = image.shape[1:]

    def at(array, y, x):
        return array[:, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]

    out = maps
    for _ in range(steps):
        before, out = out, np.zeros_like(maps)
        for y in range(height):
            for x in range(width):
                around = [(y + d * i, x + d * j) for d in dilations for i in (-1, 0, 1) for j in (-1, 0, 1)]
                spread = np.std([at(image, *n) for n in around], 0, ddof=1)
                ring = [n for n in around if n != (y, x)]
                a = np.array([-(abs(image[:, y, x] - at(image, *n)) / (1e-8 + 0.1 * spread)).mean() for n in ring])
                w = np.exp(a - a.max())
                out[:, y, x] = sum(v * at(before, *n) for v, n in zip(w / w.sum(), ring, strict=True))
    return out


@pytest.mark.parametrize("dilations", [(1,), (1, 3)])
def test_pamr_equation(dilations):
    rng = np.random.default_rng(2)
    image, maps = rng.normal(size=(3, 6, 7)), rng.normal(size=(2, 6, 7))
    refined = PAMR(2, dilations)(torch.from_numpy(image)[None], torch.from_numpy(maps)[None])[0].numpy()
    np.testing.assert_allclose(refined, numpy_pamr(image, maps, 2, dilations), atol=1e-8)


def test_pamr_refines_each_map_on_its_own():
    g = torch.Generator().manual_seed(0)
    image, maps, pamr = torch.randn(1, 3, 20, 30, generator=g), torch.randn(1, 7, 20, 30, generator=g), PAMR(3)
    affinity = pamr.affinity(image)
    parts = torch.cat([pamr.apply_to(part, affinity) for part in maps.split(3, 1)], 1)
    torch.testing.assert_close(pamr(image, maps), parts)
    constant = torch.full((1, 1, 5, 5), 2.5)  # the weights sum to one
    torch.testing.assert_close(pamr(image, constant), torch.full((1, 1, 20, 30), 2.5))


@pytest.mark.parametrize("steps, dilations", [(-1, (8,)), (1, ()), (1, (0, 8))])
def test_bad_pamr(steps, dilations):
    with pytest.raises(ValueError, match="dilations"):
        PAMR(steps, dilations)
