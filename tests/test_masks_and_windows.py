"""CorrCLIP and Trident: what of them needs no Segment Anything."""

import numpy as np
import pytest
import torch

from ovseg.dense import CorrCLIP, ProxyCLIP, Trident
from ovseg.dense.trident import global_weights
from ovseg.registry import MASKS

from .test_dense import images


def test_one_mask_is_proxyclip_without_the_left_out_entries(vit):
    x = images((48, 80))
    external = torch.rand(1, 5, 3, 5)
    one = CorrCLIP(masks=lambda picture: np.zeros(picture.shape[:2], int))
    regions = one.regions(vit, x, (3, 5))
    assert torch.equal(regions, torch.zeros(1, 15, dtype=torch.long))
    unit = torch.nn.functional.normalize(external[0].flatten(1), dim=0)
    cosine = unit.T @ unit
    expected = (one.gamma * (cosine - one.beta * cosine.mean())).softmax(-1)
    torch.testing.assert_close(one.weights(external, regions=regions)[0], expected)
    restricted = one.within(vit, x, external, regions).features
    torch.testing.assert_close(one(vit, x, external).features, restricted)
    with pytest.raises(ValueError, match="regions"):
        one.weights(external)


def test_patches_of_other_masks_have_no_weight(vit):
    x = images((64, 64))
    halves = np.zeros((64, 64), int)
    halves[:, 32:] = 1
    dense = CorrCLIP(masks=lambda picture: halves)
    regions = dense.regions(vit, x, (4, 4))
    weights = dense.weights(torch.rand(1, 5, 4, 4), regions=regions)[0].view(4, 4, 4, 4)
    assert (weights[:, :2, :, 2:] == 0).all() and (weights[:, 2:, :, :2] == 0).all()
    torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(4, 4))


def test_masks_of_the_wrong_size(vit):
    with pytest.raises(ValueError, match="masks"):
        CorrCLIP(masks=lambda picture: np.zeros((3, 3), int))(vit, images((64, 64)))


def test_superpixels_cover_the_picture():
    y, x = np.mgrid[:90, :130]
    picture = np.uint8(np.stack([2 * y, x, 60 + 0 * x], -1))
    regions = MASKS.build(dict(type="Superpixels", count=20))(picture)
    assert regions.shape == picture.shape[:2] and 5 < len(np.unique(regions)) < 60 and regions.min() == 0


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (70, 95)])
def test_trident_of_one_window_is_proxyclip(size, vit):
    x = images(size, 2)
    torch.testing.assert_close(
        Trident(window=512, stride=256)(vit, x).features, ProxyCLIP()(vit, x).features, atol=1e-5, rtol=1e-4
    )


def test_trident_averages_windows(vit):
    x, dense = images((64, 96)), Trident(window=64, stride=32)
    whole = dense.spliced(vit, x)
    parts = [Trident(window=64, stride=64).spliced(vit, x[..., left : left + 64]) for left in (0, 32)]
    torch.testing.assert_close(whole[..., :2], parts[0][..., :2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[..., 2:4], (parts[0][..., 2:] + parts[1][..., :2]) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[..., 4:], parts[1][..., 2:], atol=1e-5, rtol=1e-5)


def test_global_weights_by_loops():
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, (1, 2, 6, 4))
    attention = rng.random((1, 2, 6, 6))
    unit = values / np.linalg.norm(values, axis=-1, keepdims=True)
    cosine = unit[0] @ unit[0].transpose(0, 2, 1)
    expected = np.zeros((6, 6))
    for i in range(6):
        theta = 1.2 * cosine[:, i].mean()
        theta = 0.6 if theta < 0 else min(theta, 0.9)
        row = np.where(cosine[:, i] > theta, attention[0, :, i], 0).mean(0)
        expected[i] = row / row.sum() if row.sum() else np.eye(6)[i]
    ours = global_weights(torch.from_numpy(attention), torch.from_numpy(values))[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_trident_with_a_global_step(vit):
    def aggregate(pictures):
        generator = torch.Generator().manual_seed(1)
        return torch.rand(1, 2, 12, 12, generator=generator), torch.rand(1, 2, 12, 4, generator=generator), (3, 4)

    out = Trident(window=64, stride=32, aggregate=aggregate)(vit, images((64, 96)))
    assert out.features.shape == (1, 48, 3, 4) and out.features.isfinite().all()


def test_bad_options():
    with pytest.raises(ValueError, match="stride"):
        Trident(window=32, stride=64)


def test_trident_refuses_external_features(vit):
    with pytest.raises(ValueError, match="proxy"):
        Trident()(vit, images((64, 64)), torch.rand(1, 5, 4, 4))
