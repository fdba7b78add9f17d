"""Regions of score maps, windows stitched to one map, crops of boxes."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.predict.stitch import stitch
from ovseg.regions.crops import CropReader
from ovseg.regions.proposals import Proposals, box_masks, contrast, enlarged, mask_boxes, outermost, score_regions
from tests.conftest import ROOT


@pytest.fixture
def maps():
    """Two classes on 12×16: two blobs of the first that touch at a corner, one with a stronger core of the second."""
    scores = torch.zeros(3, 12, 16)
    scores[0, 1:4, 1:4], scores[0, 4:6, 4:8] = 0.8, 0.5
    scores[1, 6:12, 8:16], scores[1, 8:10, 10:13] = 0.4, 0.9
    return scores


class TestRegions:
    def test_components_at_shares_of_the_peak(self, maps):
        found = score_regions(maps, shares=(0.4, 0.7))
        assert isinstance(found, Proposals) and found.masks.dtype == torch.bool and found.boxes.dtype == torch.float32
        # the second class has the higher peak; its whole and its core; then the first, joined by a corner, and a part
        assert found.labels.tolist() == [1, 1, 0, 0]
        assert found.boxes.tolist() == [[8, 6, 16, 12], [10, 8, 13, 10], [1, 1, 8, 6], [1, 1, 4, 4]]
        for box, mask, label in zip(found.boxes, found.masks, found.labels, strict=True):
            assert (maps[label][mask] > 0).all() and torch.equal(mask_boxes(mask[None])[0], box)

    def test_equal_regions_come_once(self, maps):
        flat = (maps > 0).float()
        assert len(score_regions(flat, shares=(0.2, 0.5, 0.9)).labels) == 2

    def test_area_floor_and_most(self, maps):
        assert len(score_regions(maps, shares=(0.4, 0.7), area=9).labels) == 3  # the core has 6 cells
        assert score_regions(maps, shares=(0.4,), floor=0.85).labels.tolist() == [1]
        assert score_regions(maps, shares=(0.4,), floor=0.85).boxes.tolist() == [[10, 8, 13, 10]]
        assert score_regions(maps, shares=(0.4, 0.7), most=3).labels.tolist() == [1, 1, 0]

    def test_permuted_classes_permute_the_labels(self, maps):
        order = torch.tensor([2, 0, 1])
        one, other = score_regions(maps), score_regions(maps[order])
        assert torch.equal(one.masks, other.masks) and torch.equal(one.labels, order[other.labels])

    @pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 0), (2, 1, 1), (2, 5, 3)])
    def test_nothing_to_find(self, shape):
        found = score_regions(torch.zeros(shape))
        assert found.boxes.shape == (0, 4) and found.masks.shape == (0, *shape[1:]) and found.labels.shape == (0,)

    def test_values_that_are_not_finite_are_nothing(self, maps):
        broken = maps.clone()
        broken[2] = float("nan")
        broken[0, 0, 0] = float("inf")
        assert torch.equal(score_regions(broken).masks, score_regions(maps).masks)

    def test_mistakes(self, maps):
        for wrong in (dict(shares=()), dict(shares=(0,)), dict(shares=(1.1,)), dict(area=-1), dict(most=0)):
            with pytest.raises(ValueError, match="score_regions takes"):
                score_regions(maps, **wrong)
        with pytest.raises(ValueError, match="score_regions takes"):
            score_regions(maps[0])


class TestBoxesAndMasks:
    def test_boxes_of_masks(self):
        masks = torch.zeros(3, 6, 8, dtype=torch.bool)
        masks[0, 2:5, 1:3] = masks[2, 5, 7] = True
        assert mask_boxes(masks).tolist() == [[1, 2, 3, 5], [0, 0, 0, 0], [7, 5, 8, 6]]
        assert mask_boxes(masks[:0]).shape == (0, 4)

    def test_shares_of_cells_add_up_to_the_area(self):
        boxes = torch.tensor([[0.5, 1.25, 3.0, 2.0], [-4, -4, 1, 1], [2, 2, 2, 5], [0, 0, 8, 6]])
        shares = box_masks(boxes, (6, 8))
        assert shares.sum((1, 2)).tolist() == pytest.approx([2.5 * 0.75, 1, 0, 48])
        assert shares[0, 1, :4].tolist() == pytest.approx([0.375, 0.75, 0.75, 0])

    def test_contrast_is_the_mean_inside_minus_that_around(self, maps):
        rng = np.random.default_rng(0)
        scores = torch.from_numpy(rng.random((4, 12, 16))).float()
        found = score_regions(maps)
        result = contrast(scores, found.boxes, found.masks)
        for r, (box, mask) in enumerate(zip(enlarged(found.boxes), found.masks, strict=True)):
            around = box_masks(box[None], (12, 16))[0].numpy() * ~mask.numpy()
            for k in range(4):
                own = scores[k].numpy()
                expected = own[mask.numpy()].mean() - (own * around).sum() / around.sum()
                assert result[r, k] == pytest.approx(max(expected, 0), abs=1e-5)
        whole = torch.ones(1, 12, 16, dtype=torch.bool)
        torch.testing.assert_close(contrast(scores, mask_boxes(whole), whole)[0], scores.mean((1, 2)))
        assert contrast(scores, found.boxes[:0], found.masks[:0]).shape == (0, 4)

    def test_boxes_inside_others(self):
        boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 6, 6], [0, 0, 20, 20], [8, 8, 14, 14], [2, 2, 6, 6]])
        labels = torch.tensor([0, 0, 0, 0, 1])
        assert outermost(boxes, labels, 0.9).tolist() == [0, 3, 4]
        assert outermost(boxes, labels, 0.05).tolist() == [0, 4]
        assert outermost(boxes[:0], labels[:0], 0.9).tolist() == []

    def test_enlarged(self):
        assert enlarged(torch.tensor([[2.0, 2, 6, 4]]), 1.5).tolist() == [[1, 1.5, 7, 4.5]]


class TestStitching:
    @staticmethod
    def encoded(vit, picture, **settings):
        pipeline = Pipeline(vit, dict(type="NACLIP"), Protocol(**settings))
        return pipeline.encode(picture)

    def test_windows_on_the_grid_are_averaged(self, vit, picture):
        encoded = self.encoded(vit, picture, size=(96, 128), window=64, stride=32)
        views = [part.features for part in encoded.parts]
        expected, count = np.zeros((views[0].shape[1], 6, 8)), np.zeros((6, 8))
        for window, (top, left, _, _) in zip(torch.cat(views), encoded.boxes, strict=True):
            y, x = top // 16, left // 16
            expected[:, y : y + 4, x : x + 4] += window.numpy()
            count[y : y + 4, x : x + 4] += 1
        np.testing.assert_allclose(stitch(encoded, views).numpy(), expected / count, atol=1e-5)

    def test_one_window_stays_as_it_is(self, vit, picture):
        encoded = self.encoded(vit, picture, size=(96, 128), window=None)
        views = [part.features for part in encoded.parts]
        torch.testing.assert_close(stitch(encoded, views), views[0][0], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("settings", [dict(size=(90, 131)), dict(size=(20, 200)), dict(size=(70, 70), view=96)])
    def test_constants_stay_constant(self, vit, picture, settings):
        encoded = self.encoded(vit, picture, window=64, stride=40, **settings)
        views = [torch.full_like(part.features[:, :2], 3.0) for part in encoded.parts]
        assert (stitch(encoded, views) - 3).abs().max() < 1e-5

    def test_the_whole_view_counts_as_much_as_the_windows(self, vit, picture):
        encoded = self.encoded(vit, picture, size=(96, 128), window=64, stride=32, whole_view=True)
        views = [torch.zeros_like(view.features) for view in encoded.parts]
        views.append(torch.ones_like(encoded.whole.features))
        assert (stitch(encoded, views) - 0.5).abs().max() < 1e-5


class TestCrops:
    @pytest.fixture
    def pixels(self, picture):
        return torch.from_numpy(picture).permute(2, 0, 1) / 255

    def test_a_crop_of_everything_is_the_picture(self, vit, pixels):
        square = F.interpolate(pixels[None], (64, 64), mode="bicubic", antialias=True).clamp(0, 1)[0]
        box = torch.tensor([[0.0, 0, 64, 64]])
        embedding = F.normalize(vit(vit.normalize(square[None]))[0], dim=1)
        torch.testing.assert_close(CropReader(vit, (1.0,))(square, box), embedding)
        torch.testing.assert_close(CropReader(vit, (1.0, 2.0))(square, box), embedding)  # margins end at the border

    def test_batches_are_loops(self, vit, pixels):
        boxes = torch.tensor([[0.0, 0, 40, 30], [50, 20, 90, 80], [100, 60, 130, 90], [3.3, 4.4, 50.5, 60.6]])
        for masked in (False, True):
            together = CropReader(vit, masked=masked)(pixels, boxes)
            one_by_one = torch.cat([CropReader(vit, masked=masked, batch=1)(pixels, box[None]) for box in boxes])
            torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-4)
            assert torch.allclose(together.norm(dim=1), torch.ones(4))

    def test_what_lies_outside_of_a_mask_is_not_seen(self, vit, pixels):
        boxes, other = torch.tensor([[20.0, 20, 60, 60]]), pixels.clone()
        other[:, :20] = other[:, 60:] = other[:, :, :20] = other[:, :, 60:] = 0
        masked = CropReader(vit, (1.0, 1.5), masked=True)
        torch.testing.assert_close(masked(pixels, boxes), masked(other, boxes))
        plain = CropReader(vit, (1.5,))
        assert (plain(pixels, boxes) - plain(other, boxes)).abs().max() > 1e-3
        mask = torch.zeros(1, 90, 130, dtype=torch.bool)
        mask[:, 20:60, 20:60] = True
        torch.testing.assert_close(masked(pixels, boxes, mask), masked(pixels, boxes))

    def test_no_box_and_mistakes(self, vit, pixels):
        assert CropReader(vit)(pixels, torch.zeros(0, 4)).shape == (0, vit.embed_dim)
        for wrong in (dict(margins=()), dict(margins=(0.5,)), dict(batch=0)):
            with pytest.raises(ValueError, match="margins enlarge"):
                CropReader(vit, **wrong)


def test_the_benchmark_of_regions_runs_all_it_measures(vit, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools/benchmarks"))
    regions = importlib.import_module("regions")
    with torch.inference_mode():
        work = regions.workloads(vit, 64, count=5, words=[3, 8], crops=2)
        assert len(work) == 10 and all(run() is not None for run in work.values())
        row = regions.measure({"tower": work["tower"], "masks": work["masks"]}, runs=1, warmup=0)
    report = dict(tower="toy", side=64, boxes=5, threads=1, runs=1, torch="x", rows=row)
    assert "| masks | " in regions.markdown(report)
