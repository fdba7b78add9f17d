"""Several models on one benchmark at once: the same numbers as one by one, shared work done once."""

import json

import pytest
import torch
from mmseg.structures import SegDataSample

from ovseg.datasets.scenes import SceneComposer
from ovseg.engine.benchmarks import set_benchmark
from ovseg.engine.config import load_config
from ovseg.engine.together import groups, together
from ovseg.registry import MODELS
from tests.conftest import ROOT
from tests.test_segmentor import run

WORDS = ["dog", "cat", "grass", "sky"]


def model(method):
    return dict(type="OpenVocabSegmentor", dense=dict(type=method), vocabulary=WORDS)


def prepared(method, benchmark="scenes_seen_v20"):
    cfg = load_config(ROOT / f"configs/{method}/{method}_tiny.py")
    return set_benchmark(cfg, benchmark, f"out/{method}")


def test_side_by_side_equals_one_by_one_and_runs_the_tower_once():
    inputs = [torch.from_numpy(SceneComposer()(i).image[..., ::-1].copy()).permute(2, 0, 1) for i in (1, 2)]
    names = ["SCLIP", "ClearCLIP", "ProxyCLIP"]
    both = MODELS.build(dict(type="SideBySide", models={name: model(name) for name in names}))
    (tower,) = both._towers.values()
    works = []
    forget = tower.clear
    tower.clear = lambda: (works.append(len(tower.works)), forget())
    found = both.test_step(dict(inputs=inputs, data_samples=[SegDataSample(), SegDataSample()]))
    alone = [MODELS.build(model(name)).predict(inputs, [SegDataSample(), SegDataSample()]) for name in names]
    for name, samples in zip(names, alone, strict=True):
        for ours, expected in zip(found, samples, strict=True):
            assert torch.equal(ours[name].pred_sem_seg.data, expected.pred_sem_seg.data)
            assert ours[name].provenance == expected.provenance
    windows = 4  # of a scene of 128 px, enlarged to 160, in batches of at most 16
    assert works and all(count <= len(tower.blocks) * windows for count in works)
    assert len({id(m.pipeline.tower) for m in both._models.values()}) == 1


def test_other_modes_are_refused():
    both = MODELS.build(dict(type="SideBySide", models={"a": model("SCLIP")}))
    with pytest.raises(RuntimeError, match="no mode 'loss'"):
        both([], [], mode="loss")


def test_only_what_fits_runs_together():
    cfgs = {name: prepared(name) for name in ("sclip", "naclip")} | {"gem": prepared("gem", "camvid_mini")}
    assert [list(group) for group in groups(cfgs)] == [["sclip", "naclip"], ["gem"]]
    assert together({"gem": cfgs["gem"]}) is cfgs["gem"]
    merged = together({name: cfgs[name] for name in ("sclip", "naclip")})
    assert list(merged.model.models) == ["sclip", "naclip"]
    assert merged.test_evaluator.metrics["naclip"].work_dir == "out/naclip"


@pytest.mark.slow
def test_the_table_of_a_run_and_its_resumption(tmp_path):
    configs = [f"configs/{name}/{name}_tiny.py" for name in ("sclip", "vanilla", "clearclip")]
    common = ["--benchmark", "scenes_seen_v20", "--limit", "2", "--work-dir", tmp_path]
    alone = run("tools/test.py", configs[0], *common)
    assert alone.returncode == 0, alone.stderr
    one = json.loads((tmp_path / "results.json").read_text())["rows"][0]
    more = run("tools/test.py", *configs, *common, "--resume")
    assert more.returncode == 0, more.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["config"] for row in rows] == ["sclip_tiny", "vanilla_tiny", "clearclip_tiny"] and rows[0] == one
    for row in rows:
        assert row["fingerprint"] and row["vocabulary_hash"] and row["images"] == 2
        assert f"| {row['config']} |" in (tmp_path / "results.md").read_text()
