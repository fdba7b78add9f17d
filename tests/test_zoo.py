"""The zoo: configs build, metafiles say what is true of them, pages are up to date."""

import copy
import importlib.util
import json
import re

import pytest
import torch
import yaml

from ovseg.engine.benchmarks import benchmarks, changed, set_benchmark, split_row
from ovseg.engine.config import load_config
from ovseg.phrases import PhraseSearch
from ovseg.predict.build import make_protocol
from ovseg.predict.detect import DenseDetector
from ovseg.predict.name_boxes import BoxNamer
from ovseg.registry import DENSE, REFINERS, SCORERS, check_components, find_component, named, names
from ovseg.testing.toys import toy_tower
from ovseg.text.vocabulary import Vocabulary, unseen_names
from tests.conftest import ROOT

CONFIGS = sorted(p for p in (ROOT / "configs").glob("*/*_*.py") if p.parent.name not in ("_base_", "tiny_clip"))
SEGMENTORS = [p for p in CONFIGS if load_config(p).model.type == "OpenVocabSegmentor"]
TRAINED = [p for p in CONFIGS if "train_dataloader" in load_config(p)]
METAFILES = sorted((ROOT / "configs").glob("*/metafile.yml"))


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def models():
    return [(path, model) for path in METAFILES for model in read(path)["Models"]]


def method(cfg):
    """The class that holds a config's method."""
    if cfg.model.type == "OpenVocabSegmentor":
        return DENSE.get(cfg.model.dense.type)
    engines = {"PhraseLocalizer": PhraseSearch, "OpenVocabDetector": DenseDetector, "BoxClassifier": BoxNamer}
    return engines.get(cfg.model.type) or find_component(cfg.model.type, cfg.default_scope)


def buildable(dense: dict) -> dict:
    """The config of an extractor with stand-ins for what would have to be downloaded."""
    dense = dict(dense)
    if dense["type"] == "CLIPDINOiser":
        from ovseg.dense.clip_dinoiser import Correlations

        dense.pop("checkpoint")
        dense["correlations"] = Correlations(768)
    if dense.get("proxy", {}).get("type") == "TimmProxy":
        dense["proxy"] = dict(type="TowerProxy")
    return dense


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("methods_pages", ROOT / "tools/docs/methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SEGMENTORS, ids=lambda p: p.stem)
def test_every_config_and_every_row_builds(path):
    assert path.name.startswith(path.parent.name)
    read_once = load_config(path)
    assert set(read_once.benchmarks) <= set(benchmarks())
    for name in (*read_once.benchmarks, "scenes_seen_v20"):
        cfg = set_benchmark(copy.deepcopy(read_once), name, "out")
        check_components(cfg, cfg.default_scope)
        dense = DENSE.build(buildable(cfg.model.dense))
        scorer = cfg.model.get("scorer") or dense.scorer
        if scorer:
            SCORERS.build(dict(scorer))
        protocol = make_protocol(dense.protocol, dict(cfg.model.published), dict(cfg.model.protocol))
        for refiner in protocol.refine:
            REFINERS.build(dict(type=refiner) if isinstance(refiner, str) else dict(refiner))


@pytest.mark.parametrize("path", TRAINED, ids=lambda p: p.stem)
def test_every_training_config_is_sound(path):
    cfg = load_config(path)
    check_components(cfg, cfg.default_scope)
    assert cfg.train_cfg.type.endswith("TrainLoop") and cfg.optim_wrapper.optimizer.lr > 0
    assert cfg.default_hooks.checkpoint.filename_tmpl.endswith(".safetensors")
    dataset = cfg.train_dataloader.dataset
    assert dataset.type.endswith("SeededDataset") and cfg.train_dataloader.sampler.type.endswith("SeededSampler")
    inner = dataset.dataset.dataset if "dataset" in dataset.dataset else dataset.dataset
    meta = find_component(inner.type, cfg.default_scope).METAINFO
    split = meta.get("unseen") or meta.get("novel_classes")
    if split and "unseen" in cfg.model:
        assert set(unseen_names(Vocabulary.parse(cfg.model.vocabulary), cfg.model.unseen)) == set(split)


def test_a_row_may_change_the_extractor_and_the_scorer():
    folder = ROOT / "configs"
    cfg = set_benchmark(load_config(folder / "resclip/resclip_vitb16_openai.py"), "voc21", "out")
    assert cfg.model.published == dict(threshold=0.1, window=None)
    assert cfg.model.dense == dict(type="ResCLIP", residual=(2.0, 0.3), feedback=(2.2, 0.7))
    assert cfg.model.scorer == dict(type="FeedbackScore", threshold=0.5)
    other = set_benchmark(load_config(folder / "resclip/resclip_vitb16_openai.py"), "camvid_mini", "out")
    assert other.model.dense == dict(type="ResCLIP") and "scorer" not in other.model
    large = set_benchmark(load_config(folder / "cliptrase/cliptrase_vitb16_openai_336.py"), "voc20", "out")
    assert large.model.scorer.type == "WholeImageScore" and large.model.protocol.short_side == 336
    for name, background in (("voc21", True), ("coco_object", True), ("context60", False)):
        cfg = set_benchmark(load_config(folder / "clip_dinoiser/clip_dinoiser_vitb16_laion.py"), name, "out")
        assert cfg.model.get("scorer", {}).get("background", False) == background


def test_changes_are_merged_unless_the_type_is_another():
    assert split_row(dict(threshold=0.1, dense=dict(a=1))) == (dict(threshold=0.1), dict(dense=dict(a=1)))
    assert changed(dict(type="A", x=1, y=2), dict(y=3)) == dict(type="A", x=1, y=3)
    assert changed(dict(type="A", x=1), dict(type="B", y=3)) == dict(type="B", y=3)
    assert changed(None, dict(type="B")) == dict(type="B")


def test_a_change_needs_to_know_of_what(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(
        f"_base_ = '{ROOT / 'configs/sclip/sclip_tiny.py'}'\nbenchmarks = dict(voc20=dict(scorer=dict(scale=3)))\n"
    )
    with pytest.raises(ValueError, match=r"benchmarks\.voc20\.scorer.*names no scorer"):
        set_benchmark(load_config(path), "voc20", "out")


def test_a_changed_row_reaches_the_pipeline():
    from ovseg.registry import MODELS

    cfg = load_config(ROOT / "configs/resclip/resclip_tiny.py")
    cfg.model.vocabulary = None
    set_benchmark(cfg, "ade150", "out")
    cfg.model.vocabulary = ["cat", "sky"]
    pipeline = MODELS.build(cfg.model).pipeline
    assert pipeline.dense.residual == (2.0, 0.3) and pipeline.scorer.threshold == 0.25
    own = pipeline.tower.card.protocol["short_side"]
    assert pipeline.protocol.short_side == own  # the weights' settings come after the row's


def test_the_index_lists_every_metafile_and_these_every_config():
    imported = read(ROOT / "model-index.yml")["Import"]
    assert imported == [str(path.relative_to(ROOT)) for path in METAFILES]
    listed = [model["Config"] for _, model in models()]
    assert sorted(listed) == [str(path.relative_to(ROOT)) for path in CONFIGS]
    assert {path.parent for path in METAFILES} == {path.parent for path in CONFIGS}


def test_the_lab_of_the_readme_takes_methods_alone():
    assert "tools/test.py configs/*/*_tiny.py" in (ROOT / "README.md").read_text(encoding="utf-8")
    kinds = {load_config(path).model.type for path in (ROOT / "configs").glob("*/*_tiny.py")}
    assert kinds == {"OpenVocabSegmentor", "PhraseLocalizer", "OpenVocabDetector", "BoxClassifier"}


def test_every_method_is_in_the_zoo():
    of = [read(path)["Collections"][0]["Metadata"] for path in METAFILES]
    methods = [each["Method"] for each in of if "Task" not in each]
    assert sorted(methods) == list(named(DENSE))


@pytest.mark.parametrize("path", METAFILES, ids=lambda p: p.parent.name)
def test_metafiles_tell_paper_protocol_source_and_license(path, pages):
    meta, protocols = read(path), pages.protocols(pages.metafiles())
    collection = meta["Collections"][0]
    own = collection.get("Protocols", {})
    assert not set(own) & set(read(ROOT / "docs/methods/protocols.yml"))
    assert all(difference["Difference"] for difference in collection["Differences"])
    ours = "Paper" not in collection
    paper = getattr(method(load_config(ROOT / meta["Models"][0]["Config"])), "paper", None)
    assert paper is None or ours == (paper == "ours")
    assert ours or (collection["Paper"]["Title"] and collection["Paper"]["URL"].startswith("https://"))
    assert (ROOT / collection["README"]).is_file() and (ROOT / collection["Code"]["File"]).is_file()
    for model in meta["Models"]:
        assert model["In Collection"] == collection["Name"]
        cfg = load_config(ROOT / model["Config"])
        assert model["Name"] == (ROOT / model["Config"]).stem
        if "train_dataloader" not in cfg:
            assert method(cfg).__module__.replace(".", "/") + ".py" == collection["Code"]["File"]
            tower = "ovseg-tiny-scenes" if cfg.model.weights == "tiny" else cfg.model.weights
            assert model["Weights"][0]["Name"] == tower
        assert all(weights["License"] and weights["Source"] for weights in model["Weights"])
        seen = set()
        for entry in model.get("Results", []):
            assert entry["Source"] == "paper"  # what we measured is in docs/tables
            assert entry["Protocol"] in protocols and entry["Table"] and entry["Dataset"]
            assert all(0 <= value <= 100 for value in entry["Metrics"].values())
            shown, scores = set(pages.SHOWN[entry["Task"]]), set(entry["Metrics"])
            if entry["Task"] == pages.DETECT:
                shown = {"AP50", "AP50_novel"}
            assert shown <= scores
            key = entry["Dataset"], entry["Table"], entry["Protocol"]
            assert key not in seen
            seen.add(key)


def test_pages_are_up_to_date(pages):
    found = pages.stale(pages.texts())
    assert not found, f"{', '.join(found)}: run python tools/docs/methods.py --text"


@pytest.fixture
def newcomer(tmp_path, monkeypatch, pages):
    """A tree with the three files that CONTRIBUTING.md shows, the rest linked, and their method registered."""
    folders = ("configs", "ovseg", "ovseg/dense", "docs", "docs/methods")
    for name in folders:
        (tmp_path / name).mkdir()
    for path in (path for name in folders for path in (ROOT / name).iterdir()):
        if not (tmp_path / path.relative_to(ROOT)).exists():
            (tmp_path / path.relative_to(ROOT)).symlink_to(path)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for prose, block in re.findall(r"(.*?)```\w+\n(.*?)```\n", text, re.DOTALL):
        shown = re.findall(r"`((?:ovseg|configs)/\S*mymethod\S*\.\w+)`", prose)
        if shown:
            (tmp_path / shown[-1]).parent.mkdir(exist_ok=True)
            (tmp_path / shown[-1]).write_text(block, encoding="utf-8")
    names(DENSE)  # everything else is registered before
    spec = importlib.util.spec_from_file_location("ovseg.dense.mymethod", tmp_path / "ovseg/dense/mymethod.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    yield tmp_path
    del DENSE.module_dict["MyMethod"]


def test_a_method_written_as_contributing_says_passes(newcomer, pages):
    folder = newcomer / "configs/mymethod"
    meta = pages.metafiles()["mymethod"]
    (newcomer / "docs/methods/mymethod.md").write_text(pages.page("mymethod", meta), encoding="utf-8")
    assert "-m mymethod" in pages.page("mymethod", meta) and "(mymethod.md)" in pages.index(pages.metafiles())
    test_every_config_and_every_row_builds(folder / "mymethod_tiny.py")
    test_metafiles_tell_paper_protocol_source_and_license(folder / "metafile.yml", pages)
    assert "mymethod" in {name.lower() for name in names(DENSE)}
    made = DENSE.build(dict(type="MyMethod"))(toy_tower("vit"), torch.randn(1, 3, 64, 48))
    assert made.features.isfinite().all()


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*/*.log.json")), ids=lambda p: p.name)
def test_logs_are_of_configs_and_end_where_they_end(path):
    cfg = load_config(path.with_name(path.name.removesuffix(".log.json") + ".py"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert max(line["step"] for line in lines) == cfg.train_cfg.max_iters
    assert any("loss" in line for line in lines) and any("loss" not in line for line in lines)


def test_pictures_are_there_and_small(pages):
    for path in METAFILES:
        if read(path)["Collections"][0]["Metadata"]["Picture"]:
            picture = ROOT / "docs/images/methods" / f"{path.parent.name}.png"
            assert 0 < picture.stat().st_size < pages.PICTURE_BYTES


def test_only_tables_of_the_present_weights_are_read(pages, tmp_path):
    seen = {"v20": {"sclip": {"mIoU": 12.346}, "chance per patch": {"mIoU": 1}}}
    scenes = {"scenes": 7, "weights": "w (abc)", "segmentation": {"seen": seen, "unseen": {}}}
    (tmp_path / "tiny_clip.json").write_text(json.dumps(scenes))
    row = {"config": "gem_tiny", "benchmark": "coco_mini", "weights": "w (abc)", "scores": {"mIoU": 1, "mIoU_stuff": 3}}
    (tmp_path / "test_tiny.json").write_text(json.dumps({"rows": [row, row | {"config": "a_tiny", "weights": "v"}]}))
    found = pages.measured(tmp_path, "abc")
    assert found["sclip_tiny"][0]["Metrics"] == {"mIoU": 12.35}
    assert "--scenes 7" in found["sclip_tiny"][0]["Command"]
    assert found["gem_tiny"][0]["Command"] == ("python tools/test.py configs/gem/gem_tiny.py --benchmark coco_mini")
    assert "sclip_tiny" not in pages.measured(tmp_path, "other") and "a_tiny" not in found
    assert pages.lab_table([row]).endswith("| [gem](docs/methods/gem.md) | 1.0 |")
    meta = {"Models": [{"Name": "gem_tiny", "Results": [{"Source": "paper"}]}]}
    assert pages.with_measured(meta, {}) == meta
    assert len(pages.with_measured(meta, found)["Models"][0]["Results"]) == 2


def test_speed_benchmark_measures_ratios():
    spec = importlib.util.spec_from_file_location("methods_speed", ROOT / "tools/benchmarks/methods.py")
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    tower = toy_tower("vit")
    work = speed.workloads(tower, 64, only=["sclip", "cliptrase", "clip_dinoiser"])
    assert list(work) == ["tower", "sclip", "cliptrase", "cliptrase with ClusterVote", "clip_dinoiser"]
    rows = speed.measure(work, runs=2, warmup=1)
    assert rows["tower"]["time ratio"] == 1.0
    assert all(row["time ms"] > 0 and row["time ratio"] > 0 for row in rows.values())
    assert torch.get_num_threads() == 1
