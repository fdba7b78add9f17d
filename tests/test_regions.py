"""Region embeddings, superpixels, heat maps and the box search, each derived again in plain numpy."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.phrases import box_objective, heat_map, search_box
from ovseg.regions import MaskedTokens, as_masks, superpixels
from ovseg.regions import masked_tokens as module


def images(size, batch=1, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def blocks_of(size, batch=1, regions=5, seed=0):
    """Random masks of whole patches, each with at least one."""
    cells = (
        torch.rand(batch, regions, size[0] // 16, size[1] // 16, generator=torch.Generator().manual_seed(seed)) < 0.3
    )
    cells[..., 0, 0] |= ~cells.flatten(2).any(-1)
    return cells.repeat_interleave(16, 2).repeat_interleave(16, 3)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, norm):
    w, b = norm.weight.numpy(), norm.bias.numpy()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * w + b


def by_numpy(tower, image, masks, upsample, start_block):
    """(R, E) as the paper's code has it: the tokens of all other regions are keys, at −100."""
    visual, patch = tower.visual, tower.stride
    stem = F.conv2d(image[None], visual.conv1.weight, None, patch // upsample, (patch - 1) // 2)[0]
    h, w = stem.shape[1:]
    table = visual.positional_embedding
    grid = table[1:].T.reshape(1, -1, 4, 4)
    table = torch.cat([table[:1], F.interpolate(grid, (h, w), mode="bilinear").flatten(2)[0].T])
    x = torch.cat([visual.class_embedding[None], stem.flatten(1).T]) + table
    x = layer_norm(x.numpy().astype(np.float64), visual.ln_pre)
    count = len(masks)
    small = F.interpolate(masks[None].float(), (h, w))[0].flatten(1).numpy()
    bias = -100.0 * (1 - np.concatenate([small, np.eye(count)], 1))
    g = None
    for index, block in enumerate(visual.transformer.resblocks):
        weight, offset = block.attn.in_proj_weight.numpy(), block.attn.in_proj_bias.numpy()
        heads = block.attn.num_heads

        def attend(queries, keys, bias, block=block, weight=weight, offset=offset, heads=heads):
            def split(y, part):
                rows = slice(part * y.shape[1], (part + 1) * y.shape[1])
                return (y @ weight[rows].T + offset[rows]).reshape(len(y), heads, -1).transpose(1, 0, 2)

            q, k, v = split(queries, 0), split(keys, 1), split(keys, 2)
            mixed = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + bias) @ v
            out = block.attn.out_proj
            return mixed.transpose(1, 0, 2).reshape(len(queries), -1) @ out.weight.numpy().T + out.bias.numpy()

        def feed(y, block=block):
            with torch.no_grad():
                return y + block.mlp(torch.from_numpy(layer_norm(y, block.ln_2)).float()).numpy()

        if index == start_block:
            g = np.repeat(x[:1], count, 0)
        if g is not None:
            source = layer_norm(np.concatenate([x[1:], g]), block.ln_1)
            g = feed(g + attend(source[-count:], source, bias))
        normed = layer_norm(x, block.ln_1)
        x = feed(x + attend(normed, normed, 0.0))
    return layer_norm(g, visual.ln_post) @ visual.proj.numpy()


class TestMaskedTokens:
    @pytest.mark.parametrize("size", [(64, 64), (48, 96)])
    @pytest.mark.parametrize("upsample, start_block", [(1, 0), (2, 0), (2, 1), (4, 2)])
    def test_the_equation(self, vit, size, upsample, start_block):
        image, masks = images(size), blocks_of(size)
        got = MaskedTokens(upsample, start_block)(vit, image, masks)
        expected = by_numpy(vit, image[0], masks[0], upsample, start_block)
        np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-4, atol=1e-4)

    def test_batch_equals_loop(self, vit):
        x, masks = images((48, 64), 3), blocks_of((48, 64), 3)
        loop = torch.cat([MaskedTokens()(vit, x[i : i + 1], masks[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(MaskedTokens()(vit, x, masks), loop, atol=1e-5, rtol=1e-4)

    def test_regions_do_not_see_each_other(self, vit, monkeypatch):
        x, masks = images((64, 64)), blocks_of((64, 64), regions=7)
        together = MaskedTokens()(vit, x, masks.float())
        alone = torch.cat([MaskedTokens()(vit, x, masks[:, i : i + 1]) for i in range(7)], 1)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
        monkeypatch.setattr(module, "CHUNK", 3)
        torch.testing.assert_close(MaskedTokens()(vit, x, masks), together, atol=1e-5, rtol=1e-4)

    def test_a_mask_that_vanishes_on_the_grid(self, vit):
        masks = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
        masks[..., 3, 5] = True
        out = MaskedTokens(1)(vit, images((64, 64)), masks)
        expected = by_numpy(vit, images((64, 64))[0], masks[0], 1, 0)
        np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-4, atol=1e-4)

    def test_sizes_that_are_no_whole_patches(self, vit):
        x, masks = images((50, 90)), torch.ones(1, 2, 50, 90)
        assert MaskedTokens(2).grid_of(vit, x) == (7, 12)  # (size + 2·7 − 16) // 8 + 1
        assert MaskedTokens(2)(vit, x, masks).isfinite().all()

    def test_half_positions(self, vit):
        plain, half = (MaskedTokens(1, half_positions=flag).positions(vit, (4, 4)) for flag in (False, True))
        assert torch.equal(plain, vit.visual.positional_embedding) and torch.equal(half, plain.half().float())

    @pytest.mark.parametrize(
        "masks, words",
        [
            (torch.ones(1, 2, 32, 64), "expected \\(1, R, 64, 64\\)"),
            (torch.ones(2, 2, 64, 64), "R of at least one"),
            (torch.ones(1, 0, 64, 64), "R of at least one"),
            (torch.ones(64, 64), "got \\(64, 64\\)"),
            (torch.stack([torch.ones(64, 64), torch.zeros(64, 64)])[None], "region 1 of image 0"),
        ],
    )
    def test_wrong_masks(self, vit, masks, words):
        with pytest.raises(ValueError, match=words):
            MaskedTokens()(vit, images((64, 64)), masks)

    def test_wrong_towers_and_settings(self, vit, resnet):
        x, masks = images((64, 64)), torch.ones(1, 1, 64, 64)
        with pytest.raises(ValueError, match="a class token.*resnet"):
            MaskedTokens()(resnet, x, masks)
        with pytest.raises(ValueError, match="does not divide"):
            MaskedTokens(3)(vit, x, masks)
        with pytest.raises(ValueError, match="blocks 0 to 2"):
            MaskedTokens(start_block=3)(vit, x, masks)
        with pytest.raises(ValueError, match="one patch"):
            MaskedTokens()(vit, x[..., :8, :8], masks[..., :8, :8])
        with pytest.raises(ValueError, match="upsample"):
            MaskedTokens(0)


class TestSuperpixels:
    def test_ids_and_masks(self, picture):
        maps = superpixels(picture, (10, 40))
        assert maps.shape == (2, 90, 130) and maps.dtype == np.int32
        assert (np.unique(maps) == np.arange(maps.max() + 1)).all() and maps[0].max() < maps[1].min()
        masks = as_masks(maps)
        assert (masks.sum(0) == 2).all() and (masks[maps[1, 4, 7]] == (maps[1] == maps[1, 4, 7])).all()

    def test_pixels_without_region(self):
        ids = np.array([[0, -1], [1, 1]])
        assert (as_masks(ids) == np.array([[[1, 0], [0, 0]], [[0, 0], [1, 1]]], bool)).all()

    def test_mistakes(self, picture, monkeypatch):
        for wrong in (picture / 255, picture[..., 0], picture[:0]):
            with pytest.raises(ValueError, match="uint8 RGB"):
                superpixels(wrong)
        with pytest.raises(ValueError, match="counts"):
            superpixels(picture, ())
        with pytest.raises(ValueError, match="region ids"):
            as_masks(np.full((2, 2), -1))
        monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
        with pytest.raises(ImportError, match="pip install scikit-image"):
            superpixels(picture, (10,))


class TestHeatMap:
    def test_the_equation(self):
        rng = np.random.default_rng(0)
        masks, scores = rng.random((6, 5, 7)) < 0.5, rng.normal(0, 0.05, (3, 6))
        painted = np.where(masks[None], np.exp(scores / 0.02)[..., None, None], np.nan)
        with np.errstate(all="ignore"):
            mean = np.nansum(painted, 1) / masks.sum(0)
        low, high = np.nanmin(mean, (1, 2), keepdims=True), np.nanmax(mean, (1, 2), keepdims=True)
        expected = np.nan_to_num((mean - low) / (high - low))
        np.testing.assert_allclose(heat_map(scores, masks, 0.02), expected, atol=1e-6)
        ids = np.where(masks, np.arange(6)[:, None, None], -1)
        np.testing.assert_allclose(heat_map(scores[1], ids, 0.02), expected[1], atol=1e-6)

    def test_range_and_edges(self):
        ids = np.arange(12).reshape(1, 3, 4)
        steep = heat_map(np.linspace(-1, 1, 12), ids, 1e-4)  # exp(±10000) on its own would overflow
        assert steep.min() == 0 and steep.max() == 1 and np.isfinite(steep).all()
        assert (heat_map(np.full(12, 0.3), ids) == 0).all()
        assert heat_map(np.array([0.1, 0.2]), np.array([[[0, 1, -1]]]))[0, 2] == 0

    def test_mistakes(self):
        ids = np.arange(4).reshape(1, 2, 2)
        for scores, regions, temperature, words in [
            (np.zeros(3), ids, 0.01, "expected R = 4"),
            (np.full(4, np.nan), ids, 0.01, "finite"),
            (np.zeros(4), ids[0], 0.01, "regions must be ids"),
            (np.zeros(4), ids, 0, "must be positive"),
        ]:
            with pytest.raises(ValueError, match=words):
                heat_map(scores, regions, temperature)


def every_box(heat, alpha, ranges):
    """First best box by plain loops."""
    best, found = -np.inf, None
    span = [range(low, high + 1) for low, high in ranges]
    for x1 in span[0]:
        for y1 in span[1]:
            for x2 in span[2]:
                for y2 in span[3]:
                    if x2 > x1 and y2 > y1:
                        area = (x2 - x1 + 1) * (y2 - y1 + 1)
                        value = heat[y1 : y2 + 1, x1 : x2 + 1].sum() / heat.sum() - alpha * area / heat.size
                        if value > best + 1e-12:
                            best, found = value, (x1, y1, x2, y2)
    return found, best


class TestBoxSearch:
    @pytest.mark.parametrize("shape", [(24, 32), (19, 25), (9, 40)])
    @pytest.mark.parametrize("alpha", [0.5, 0.9])
    def test_against_loops(self, shape, alpha):
        rng = np.random.default_rng(sum(shape))
        heat = rng.random(shape) ** 6
        heat[3:7, 4:9] += 1
        h, w = shape
        factors = [4 if side // 4 >= 2 else 1 for side in shape]
        small = F.interpolate(torch.from_numpy(heat)[None, None], (h // factors[0], w // factors[1]), mode="bilinear")[
            0, 0
        ].numpy()
        coarse, _ = every_box(small, alpha, [(0, s - 1) for s in small.shape[::-1] * 2])
        scaled = [v * f for v, f in zip(coarse, factors[::-1] * 2, strict=True)]
        ranges = [(max(0, v - 4), min(v + 4, s - 1)) for v, s in zip(scaled, (w, h, w, h), strict=True)]
        expected, value = every_box(heat, alpha, ranges)
        found = search_box(heat, alpha, downsample=4)
        assert found.box == expected and found.objective == pytest.approx(value)
        assert box_objective(heat, np.array([expected]), alpha)[0] == pytest.approx(value)

    def test_a_bright_box_is_found(self):
        heat = np.zeros((96, 128), np.float32)
        heat[21:60, 33:97] = 1
        assert search_box(heat, 0.9).box == (33, 21, 96, 59)

    def test_zero_tiny_and_sparse_maps(self):
        assert search_box(np.zeros((40, 60)), 0.75) == (0, 0, 59, 39, 0.25)
        assert search_box(np.ones((2, 2))).box == (0, 0, 1, 1)
        assert box_objective(np.zeros((4, 4)), np.array([[0, 0, 3, 1]]), 0.5)[0] == pytest.approx(0.25)
        sparse = np.zeros((32, 32))
        sparse[0, 0] = 1  # between the samples of the shrunk map
        assert search_box(sparse).box == (0, 0, 1, 1)

    def test_the_first_of_equals(self):
        heat = np.zeros((32, 32))
        heat[4:8, 2:8] = heat[4:8, 22:28] = heat[20:24, 2:8] = 1
        assert search_box(heat, 6, downsample=1).box == (2, 4, 7, 7)

    def test_mistakes(self):
        for wrong in (np.ones((1, 9)), np.full((9, 9), np.nan), -np.ones((9, 9)), np.ones(9)):
            with pytest.raises(ValueError, match="heat map"):
                search_box(wrong)
        with pytest.raises(ValueError, match="alpha"):
            search_box(np.ones((9, 9)), np.inf)
        with pytest.raises(ValueError, match="downsample"):
            search_box(np.ones((9, 9)), downsample=0)
        for boxes in ([[0, 0, 9, 8]], [[5, 0, 4, 8]], [[-1, 0, 4, 8]]):
            with pytest.raises(ValueError, match="inside the 9 x 9 map"):
                box_objective(np.ones((9, 9)), np.array(boxes))
        with pytest.raises(ValueError, match="integers"):
            box_objective(np.ones((9, 9)), np.zeros((1, 4)))
