"""Detection without training and the naming of true boxes as MMEngine models, and the benchmarks that fit them."""

import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ovseg.apis.load import load_detector
from ovseg.engine.benchmarks import DoesNotFit, benchmarks, set_benchmark
from ovseg.engine.config import load_config
from ovseg.engine.trainer import Trainer
from ovseg.evaluation.boxes import BoxAccuracy
from ovseg.registry import MODELS, check_components, find_component
from ovseg.results import rle
from ovseg.text.vocabulary import Vocabulary
from tests.conftest import ROOT
from tests.test_datasets import few_stuff_pictures  # noqa: F401 (fixture)

pytestmark = pytest.mark.usefixtures("few_stuff_pictures")
WORDS = ["cat", "dog", "owl"]
SETTINGS = dict(protocol=dict(templates="name"), boxes=dict(floor=0, area=1, background=["sky", "wall"]))


def build(kind, tower, **options):
    return MODELS.build(
        dict(type=kind, dense=dict(type="NACLIP"), vocabulary=WORDS, weights=tower, **SETTINGS | options)
    )


def bgr(picture):
    return torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)


def truth(boxes, labels, size=(90, 130), **more):
    sample = DetDataSample(metainfo=dict(img_path="a.png", ori_shape=size))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(), labels=torch.tensor(labels).long(), **more
    )
    return sample


class TestDetector:
    def test_answers_are_those_of_the_python_api(self, vit, picture):
        model = build("OpenVocabDetector", vit)
        other = np.ascontiguousarray(picture[::-1, :70])
        first, second = model.test_step(
            dict(inputs=[bgr(picture), bgr(other)], data_samples=[DetDataSample(), DetDataSample()])
        )
        settings = SETTINGS["boxes"] | dict(templates="name", background=("sky", "wall"))
        expected = load_detector("naclip", tower=vit, classes=WORDS, cache=False, **settings)
        for sample, image in ((first, picture), (second, other)):
            found = expected(image)
            np.testing.assert_allclose(sample.pred_instances.bboxes.numpy(), found.boxes, atol=1e-4)
            np.testing.assert_allclose(sample.pred_instances.scores.numpy(), found.scores, atol=1e-5)
            assert sample.pred_instances.labels.tolist() == found.labels.tolist()
            assert rle.decode(sample.pred_instances.masks[0]).shape == image.shape[:2]
        assert first.provenance == second.provenance and str(first.provenance.weights) == "toy vit 0 (toy-vit-0)"
        told = expected.engine.provenance(expected.vocabulary)
        assert first.provenance == told

    def test_an_empty_picture_among_others(self, vit, picture):
        model = build("OpenVocabDetector", vit, boxes=dict(floor=0.999))
        (sample,) = model.test_step(dict(inputs=[bgr(picture)], data_samples=[DetDataSample()]))
        assert len(sample.pred_instances) == 0 and sample.pred_instances.bboxes.shape == (0, 4)

    def test_mistakes(self, vit, picture):
        with pytest.raises(RuntimeError, match="training-free"):
            build("OpenVocabDetector", vit)([bgr(picture)], [DetDataSample()], mode="loss")
        for wrong, says in (
            (dict(boxes=dict(nms=0)), "nms=0"),
            (dict(boxes=dict(threshold=1)), "threshold"),
            (dict(protocol=dict(windw=1)), "windw"),
            (dict(published=dict(sclae=1)), "sclae"),
        ):
            with pytest.raises((ValueError, TypeError), match=says):
                build("OpenVocabDetector", vit, **wrong)


class TestClassifier:
    BOXES, LABELS = [[10, 10, 60, 60], [70, 20, 128, 88], [5, 5, 5, 40]], [0, 2, 1]

    def test_scores_of_true_boxes_in_their_order(self, vit, picture):
        model = build("BoxClassifier", vit, readouts=["roi", "crop"], margins=[1.0, 1.5])
        samples = [truth(self.BOXES, self.LABELS), truth([], []), truth(self.BOXES[::-1], self.LABELS[::-1])]
        first, none, turned = model.test_step(dict(inputs=[bgr(picture)] * 3, data_samples=samples))
        scores = first.pred_instances.class_scores
        assert scores.shape == (3, 3) and (scores[2] == 0).all() and none.pred_instances.class_scores.shape == (0, 3)
        torch.testing.assert_close(turned.pred_instances.class_scores, scores.flip(0))
        assert first.provenance.protocol["readouts"] == ["roi", "crop"]
        assert first.provenance.protocol["margins"] == [1.0, 1.5]
        metric = BoxAccuracy()
        metric.dataset_meta = dict(classes=tuple(WORDS))
        metric.process({}, [first.to_dict(), none.to_dict()])
        assert set(metric.evaluate(2)) == {"gt_boxes/top1", "gt_boxes/top5", "gt_boxes/mAcc"}

    def test_masks_of_the_truth_are_read(self, vit, picture):
        from mmdet.structures.mask import BitmapMasks

        masks = np.zeros((3, 90, 130), np.uint8)
        masks[0, 20:30, 20:60], masks[1, 60:80, 80:100] = 1, 1
        model = build("BoxClassifier", vit, readouts=["mask", "masked_crop"])
        step = dict(inputs=[bgr(picture)], data_samples=[truth(self.BOXES, self.LABELS)])
        (plain,) = model.test_step(step)
        step["data_samples"] = [truth(self.BOXES, self.LABELS, masks=BitmapMasks(masks, 90, 130))]
        (masked,) = model.test_step(step)
        assert (plain.pred_instances.class_scores - masked.pred_instances.class_scores)[:2].abs().max() > 1e-4

    def test_read_outs_change_the_fingerprint(self, vit):
        def fingerprint(**options):
            return build("BoxClassifier", vit, **options).provenance.fingerprint

        assert fingerprint() == fingerprint(readouts=["roi"]) != fingerprint(readouts=["mask"])
        assert fingerprint(readouts=["crop"], margins=[1.5]) != fingerprint(readouts=["crop"], margins=[2.0])

    def test_mistakes(self, vit, picture):
        with pytest.raises(ValueError, match="names the true boxes"):
            build("BoxClassifier", vit).test_step(dict(inputs=[bgr(picture)], data_samples=[DetDataSample()]))
        with pytest.raises(ValueError, match="read-outs are one or more"):
            build("BoxClassifier", vit, readouts=["rio"])


class TestBenchmarks:
    FITTING = {
        "detection/detection_clip_surgery_tiny.py": ["scenes_boxes_seen", "scenes_boxes_unseen", "coco_mini_boxes"],
        "box_classifier/box_classifier_crops_tiny.py": [
            "scenes_gt_boxes_seen",
            "scenes_gt_boxes_unseen",
            "coco_mini_gt_boxes",
        ],
    }

    @pytest.mark.parametrize("path", sorted(FITTING))
    def test_each_model_is_given_what_it_can_answer(self, path):
        config = ROOT / "configs" / path
        for name, row in benchmarks().items():
            if name in self.FITTING[path]:
                cfg = set_benchmark(load_config(config), name, "out")
                check_components(cfg, cfg.default_scope)
                assert (
                    cfg.test_evaluator.type == f"ovseg.{row.metric}" == f"ovseg.{find_component(cfg.model.type).metric}"
                )
                assert len(Vocabulary.parse(cfg.model.vocabulary)) == (80 if "coco" in name else 94)
            else:
                with pytest.raises(DoesNotFit, match="cannot read the answers"):
                    set_benchmark(load_config(config), name, "out")

    @pytest.mark.parametrize(
        "path, fitting, other",
        [
            ("regionclip/regionclip_pretrain_tiny_scenes.py", "scenes_gt_boxes_unseen", "scenes_boxes_seen"),
            ("regionclip/regionclip_tiny_scenes.py", "scenes_boxes_seen", "scenes_gt_boxes_seen"),
            ("fvit/fvit_tiny_scenes.py", "coco_mini_boxes", "coco_mini_gt_boxes"),
        ],
    )
    def test_trained_models_read_by_their_own_pipeline(self, path, fitting, other):
        cfg = set_benchmark(load_config(ROOT / "configs" / path), fitting, "out")
        assert cfg.words == benchmarks()[fitting].vocabulary and "published" not in cfg.model
        assert cfg.test_dataloader.dataset.pipeline[1].type == "mmdet.Resize"
        with pytest.raises(DoesNotFit, match="cannot read the answers"):
            set_benchmark(load_config(ROOT / "configs" / path), other, "out")

    def test_others_are_refused_the_boxes(self):
        for path in ("naclip/naclip_tiny.py", "adapting_clip/adapting_clip_tiny.py"):
            for name in sum(self.FITTING.values(), []):
                with pytest.raises(DoesNotFit):
                    set_benchmark(load_config(ROOT / "configs" / path), name, "out")

    def test_words_are_the_classes_of_the_data(self, data, monkeypatch):
        monkeypatch.setenv("OVSEG_DATA", str(data))
        for name in sum(self.FITTING.values(), []):
            row = benchmarks()[name]
            classes = find_component(row.dataset["type"], "ovseg").METAINFO["classes"]
            assert tuple(classes) == Vocabulary.parse(row.vocabulary).names

    @pytest.mark.parametrize("path, name", [(path, names[0]) for path, names in sorted(FITTING.items())])
    def test_the_runner_measures_them(self, path, name, tmp_path):
        cfg = set_benchmark(load_config(ROOT / "configs" / path), name, str(tmp_path))
        cfg.pop("benchmarks")
        cfg.model.protocol = dict(templates="name")
        cfg.test_dataloader.dataset.indices = 2
        cfg.work_dir, cfg.log_level = str(tmp_path), "WARNING"
        runner = Trainer.from_cfg(cfg)
        scores = runner.test()
        dataset = runner.test_loop.dataloader.dataset.metainfo["dataset_name"]
        report = json.loads((tmp_path / f"metrics_{dataset}.json").read_text())
        assert (
            report["images"] == 2 and report["weights"]["name"].startswith("ovseg-tiny") and report["vocabulary_hash"]
        )
        assert report["fingerprint"] and len(scores) == len(report["scores"])
        assert ("AP50" if benchmarks()[name].metric == "OpenVocabAP" else "top1") in report["scores"]
