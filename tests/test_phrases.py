"""Phrase localization through the runner: true boxes, the same answers as the Python API, and promised errors."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

import ovseg.datasets.phrases as phrases
from ovseg.apis.locate import Locator
from ovseg.datasets.scenes import object_names
from ovseg.datasets.scenes.compose import Scene
from ovseg.engine.benchmarks import benchmarks, set_benchmark
from ovseg.engine.config import load_config
from ovseg.evaluation.localization import box_hit, peak, point_hit
from ovseg.registry import DATASETS, METRICS, MODELS, check_components
from ovseg.results.provenance import Provenance, tower_weights
from ovseg.text.vocabulary import Vocabulary
from tests.conftest import ROOT
from tests.test_datasets import few_stuff_pictures  # noqa: F401 (fixture)

pytestmark = pytest.mark.usefixtures("few_stuff_pictures")
QUICK = dict(counts=(20, 60), size=64)
CONFIG = ROOT / "configs/adapting_clip/adapting_clip_tiny.py"


def build(kind, **kwargs):
    return DATASETS.build(dict(type=kind, **kwargs))


def rgb(item):
    return item["inputs"].flip(0).permute(1, 2, 0).contiguous().numpy()


@pytest.fixture
def coco(tmp_path):
    """Two pictures of 20 x 30: two cats and a crowd of dogs on the first, nothing on the second."""
    (tmp_path / "images/val").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30, 3), 9, np.uint8)).save(tmp_path / "images/val" / name)
    content = dict(
        images=[dict(id=7, file_name="a.png", height=20, width=30), dict(id=8, file_name="b.png", height=20, width=30)],
        categories=[dict(id=1, name="cat"), dict(id=5, name="dog")],
        annotations=[
            dict(image_id=7, category_id=1, bbox=[1, 2, 3, 4], iscrowd=0),
            dict(image_id=7, category_id=5, bbox=[0, 0, 30, 20], iscrowd=1),
            dict(image_id=7, category_id=1, bbox=[10, 0, 20, 20], iscrowd=0),
        ],
    )

    def write(**changes):
        (tmp_path / "instances_val.json").write_text(json.dumps(content | changes))
        return build("COCOMiniPhrases", data_root=str(tmp_path))

    return write


class TestScenes:
    def test_boxes_hold_just_what_the_label_map_shows(self):
        from ovseg.datasets import ComposedScenes

        for styles in ("seen", "unseen"):
            dataset, maps = build("ScenePhrases", styles=styles, count=3), ComposedScenes(styles=styles, count=3)
            for item, scene in zip(dataset, maps, strict=True):
                assert torch.equal(item["inputs"], scene["inputs"])
                labels = scene["data_samples"].gt_sem_seg.data[0].numpy()
                assert item["data_samples"].phrases
                for each in item["data_samples"].phrases:
                    rows, columns = np.nonzero(labels == object_names().index(each["phrase"]))
                    expected = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
                    assert each["truth"].tolist() == expected and each["truth"].dtype == np.float32

    def test_what_is_hidden_or_stuff_is_not_asked_for(self, monkeypatch):
        labels = np.full((20, 20), len(object_names()), np.int64)
        shown, hidden = np.zeros((2, 20, 20), bool)
        shown[2:12, 4:10], hidden[15, 15] = True, True
        scene = Scene(np.zeros((20, 20, 3), np.uint8), labels, [(3, hidden, 0.05), (6, shown, 0.9)])
        monkeypatch.setattr(phrases, "_composer", lambda **_: lambda seed: scene)
        found = build("ScenePhrases", count=1)[0]["data_samples"].phrases
        assert [each["phrase"] for each in found] == [object_names()[6]]
        assert found[0]["truth"].tolist() == [[4, 2, 10, 12]]

    def test_habits_of_mmengine(self):
        lazy = build("ScenePhrases", lazy_init=True, count=50)
        assert not lazy._fully_initialized and lazy.metainfo["dataset_name"] == "scenes_phrases_seen"
        some = build("ScenePhrases", styles="unseen", count=50, indices=2, first_seed=5)
        assert len(lazy) == 50 and len(some) == 2 and some.metainfo["dataset_name"] == "scenes_phrases_unseen"
        assert some.get_data_info(1)["seed"] == 6 and tuple(some.metainfo["classes"]) == tuple(object_names())
        assert torch.equal(pickle.loads(pickle.dumps(some))[1]["inputs"], some[1]["inputs"])

    def test_mistakes(self):
        for wrong in (dict(styles="old"), dict(count=0), dict(size=0)):
            with pytest.raises(ValueError, match="ScenePhrases takes"):
                build("ScenePhrases", **wrong)
        with pytest.raises(ValueError, match="reads no files.*only"):
            build("ScenePhrases", ann_file="a.json")


class TestCOCO:
    def test_all_boxes_of_a_name_are_true_and_crowds_are_left_out(self, coco):
        dataset = coco()
        first, second = dataset
        assert [each["phrase"] for each in first["data_samples"].phrases] == ["cat"]
        assert first["data_samples"].phrases[0]["truth"].tolist() == [[1, 2, 4, 6], [10, 0, 30, 20]]
        assert second["data_samples"].phrases == [] and first["inputs"].shape == (3, 20, 30)
        assert first["data_samples"].img_path.endswith("a.png") and len(dataset) == 2

    def test_mistakes(self, coco, tmp_path):
        with pytest.raises(FileNotFoundError, match="instances_val.json.*data_root"):
            build("COCOMiniPhrases", data_root=str(tmp_path))
        with pytest.raises(ValueError, match="splits train, val"):
            build("COCOMiniPhrases", split="test")
        for wrong in (dict(categories=[]), dict(images=None), dict(annotations=[dict(image_id=9, bbox=[0, 0, 1, 1])])):
            with pytest.raises(ValueError, match="not a JSON file of COCO instances"):
                coco(**wrong)
        turned = [dict(id=7, file_name="a.png", height=30, width=20)]
        with pytest.raises(ValueError, match=r"30 x 20 pixels, its annotations are for 20 x 30"):
            coco(images=turned)[0]

    def test_coco_mini(self, data, monkeypatch):
        monkeypatch.setenv("OVSEG_DATA", str(data))
        for split in ("train", "val"):
            dataset = build("COCOMiniPhrases", split=split)
            asked = [each for i in range(len(dataset)) for each in dataset.get_data_info(i)["phrases"]]
            assert len(dataset) == 100 and {each["phrase"] for each in asked} <= set(dataset.metainfo["classes"])
            assert all((each["truth"][:, 2:] > each["truth"][:, :2]).all() for each in asked)
        infos = [dataset.get_data_info(i) for i in range(100)]
        whole = [box_hit((0, 0, i["width"], i["height"]), p["truth"]) for i in infos for p in i["phrases"]]
        center = [point_hit((i["width"] / 2, i["height"] / 2), p["truth"]) for i in infos for p in i["phrases"]]
        assert (100 * np.mean(whole), 100 * np.mean(center)) == pytest.approx(
            (10.07, 32.64), abs=0.005
        )  # protocols.yml
        labels = build("COCOMini", split="val", pipeline=[dict(type="mmseg.LoadAnnotations")])
        seen = {labels.metainfo["classes"][i] for i in np.unique(labels[0]["gt_seg_map"]) if i < 80}
        name = labels.get_data_info(0)["img_path"]
        same = next(info for info in map(dataset.get_data_info, range(100)) if info["img_path"] == name)
        assert {each["phrase"] for each in same["phrases"]} == seen
        assert all(len(dataset[i]["inputs"]) == 3 for i in range(0, 100, 20))


class TestRunner:
    def test_the_runner_measures_what_the_locator_finds(self, tmp_path):
        cfg = set_benchmark(load_config(CONFIG), "scenes_phrases_seen", str(tmp_path))
        cfg.pop("benchmarks")
        cfg.model.protocol = QUICK
        cfg.test_dataloader.dataset.indices = 4
        cfg.work_dir = str(tmp_path)
        scores = Runner.from_cfg(cfg).test()

        locator, hits, points = Locator(cache=False, **QUICK), [], []
        for item in build("ScenePhrases", count=4):
            asked = item["data_samples"].phrases
            found = locator(rgb(item), [each["phrase"] for each in asked])
            hits += [box_hit(f.box, each["truth"]) for f, each in zip(found, asked, strict=True)]
            points += [point_hit(peak(f.heatmap), each["truth"]) for f, each in zip(found, asked, strict=True)]
        assert len(hits) > 4 and any(points)
        expected = dict(accuracy=100 * np.mean(hits), pointing=100 * np.mean(points))
        assert scores == pytest.approx({f"phrase/{k}": v for k, v in expected.items()} | {"phrase/phrases": len(hits)})

        report = json.loads((tmp_path / "metrics_scenes_phrases_seen.json").read_text())
        assert report["scores"] == pytest.approx(expected) and report["images"] == 4 and report["phrases"] == len(hits)
        assert report["weights"] == tower_weights(locator.tower.card).to_dict()
        assert report["vocabulary_hash"] == Vocabulary.parse(object_names()).hash
        assert report["protocol"]["counts"] == [20, 60] and report["fingerprint"]
        assert report["hit"] == dict(iou_above=0.5, merge=False)

    def test_answers_are_those_of_the_locator_one_by_one(self, vit, picture):
        model = MODELS.build(dict(type="PhraseLocalizer", weights=vit, protocol=QUICK))
        item = build("ScenePhrases", count=1)[0]
        other = phrases.PackPhrases()(dict(img=picture[..., ::-1], phrases=[], img_path="none"))
        first, second = model.test_step(
            dict(
                inputs=[item["inputs"], other["inputs"]],
                data_samples=[item["data_samples"].clone(), other["data_samples"]],
            )
        )
        found = Locator(tower=vit, cache=False, **QUICK)(rgb(item), [each["phrase"] for each in first.phrases])
        for each, location in zip(first.phrases, found, strict=True):
            assert each["box"] == location.box and each["score"] == location.score
            np.testing.assert_array_equal(each["heat"], location.heatmap)
        assert second.phrases == [] and second.provenance == first.provenance

    def test_settings_change_the_fingerprint(self, vit):
        def fingerprint(**settings):
            return MODELS.build(dict(type="PhraseLocalizer", weights=vit, **settings)).provenance.fingerprint

        assert fingerprint() == fingerprint(protocol=dict(alpha=0.8)) != fingerprint(protocol=dict(alpha=0.7))
        assert fingerprint(published=dict(alpha=0.7), protocol=dict(alpha=0.8)) == fingerprint()

    def test_mistakes(self, vit, resnet):
        with pytest.raises(ValueError, match="unknown setting 'alfa'.*'alpha'"):
            MODELS.build(dict(type="PhraseLocalizer", weights=vit, protocol=dict(alfa=1)))
        with pytest.raises(ValueError, match="a class token"):
            MODELS.build(dict(type="PhraseLocalizer", weights=resnet))
        model = MODELS.build(dict(type="PhraseLocalizer", weights=vit, protocol=QUICK))
        item = build("ScenePhrases", count=1)[0]
        del item["data_samples"].phrases
        with pytest.raises(ValueError, match="comes with none.*ScenePhrases"):
            model.predict([item["inputs"]], [item["data_samples"]])
        with pytest.raises(RuntimeError, match="training-free"):
            model([item["inputs"]], [item["data_samples"]], mode="loss")


class TestMetric:
    RIGHT = dict(phrase="cat", box=(0, 0, 4, 4), truth=np.array([[0, 0, 4, 4]]))

    def test_one_score_needs_one_protocol(self, tmp_path):
        metric = METRICS.build(dict(type="PhraseMetric", work_dir=str(tmp_path)))
        metric.process({}, [dict(phrases=[self.RIGHT], provenance=Provenance("a"))])
        with pytest.raises(ValueError, match="one score needs one protocol"):
            metric.process({}, [dict(phrases=[self.RIGHT], provenance=Provenance("b"))])
        assert metric.evaluate(1) == {"phrase/accuracy": 100, "phrase/phrases": 1}
        report = json.loads((tmp_path / "metrics_dataset.json").read_text())
        assert report["scores"] == {"accuracy": 100} and report["method"] == "a" and report["protocol"] == {}

    def test_a_phrase_without_answer(self):
        with pytest.raises(ValueError, match="a phrase has only phrase, truth"):
            METRICS.build(dict(type="PhraseMetric")).process(
                {}, [dict(phrases=[{k: v for k, v in self.RIGHT.items() if k != "box"}])]
            )


def test_a_benchmark_of_the_other_kind_names_those_that_fit():
    fitting = [name for name, row in benchmarks().items() if row.metric == "PhraseMetric"]
    assert sorted(fitting) == ["coco_mini_phrases", "scenes_phrases_seen", "scenes_phrases_unseen"]
    with pytest.raises(ValueError, match=f"'voc20'.*PhraseLocalizer.*one of: {', '.join(fitting)}"):
        set_benchmark(load_config(CONFIG), "voc20", "out")
    with pytest.raises(ValueError, match="'coco_mini_phrases'.*OpenVocabSegmentor.*voc20, voc21"):
        set_benchmark(load_config(ROOT / "configs/naclip/naclip_tiny.py"), "coco_mini_phrases", "out")


@pytest.mark.parametrize("path", sorted(CONFIG.parent.glob("*.py")), ids=lambda p: p.stem)
def test_every_config_builds(path, vit):
    for name in ("coco_mini_phrases", "scenes_phrases_unseen"):
        cfg = set_benchmark(load_config(path), name, "out")
        check_components(cfg, cfg.default_scope)
        model = MODELS.build(dict(cfg.model, weights=vit))
        assert model.search.alpha == 0.8 and model.vocabulary == Vocabulary.parse(benchmarks()[name].vocabulary)
        assert cfg.test_evaluator == dict(type="ovseg.PhraseMetric", work_dir="out")
