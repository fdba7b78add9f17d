"""The MMSegmentation side: the same numbers as the Python API, alone and on two processes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT


def run(*args, processes=1):
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*launch, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_segmentor_equals_the_python_api():
    from mmseg.structures import SegDataSample

    import ovseg
    from ovseg.datasets.scenes import SceneComposer
    from ovseg.registry import MODELS

    words = ["dog", "cat", "grass", "sky"]
    image = SceneComposer()(1).image
    model = MODELS.build(dict(type="OpenVocabSegmentor", dense=dict(type="SCLIP"), vocabulary=words))
    sample = model.predict([torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)], [SegDataSample()])[0]
    expected = ovseg.load("sclip", classes=words)(image)
    np.testing.assert_array_equal(sample.pred_sem_seg.data[0].numpy(), expected.labels)
    assert sample.provenance == expected.provenance

    only = SegDataSample(metainfo={"candidates": [1, 3]})
    chosen = model.predict([torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)], [only])[0]
    assert set(chosen.pred_sem_seg.data.unique().tolist()) <= {1, 3}
    with pytest.raises(RuntimeError, match="training-free"):
        model.loss(None, None)


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(tmp_path):
    config = "configs/clearclip/clearclip_tiny.py"
    common = ["tools/test.py", config, "--benchmark", "scenes_seen_v20", "--limit", "5"]
    one = run(*common, "--work-dir", tmp_path / "one")
    two = run(*common, "--work-dir", tmp_path / "two", "--launcher", "pytorch", processes=2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    reports = [
        json.loads((tmp_path / n / "clearclip_tiny" / "metrics_scenes_seen_v20.json").read_text())
        for n in ("one", "two")
    ]
    assert reports[0] == reports[1]
    assert reports[0]["fingerprint"] and reports[0]["weights"]["name"].startswith("ovseg-tiny")
    assert (tmp_path / "one" / "results.md").read_text() == (tmp_path / "two" / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "args, word",
    [
        (["configs/sclip/sclip_tiny.py", "--benchmark", "voc22"], "voc2"),
        (["configs/sclip/sclip_tiny.py", "--benchmark", "voc20"], "data_root"),
        (["configs/sclip/nothing.py"], "No config file"),
        (
            ["configs/sclip/sclip_tiny.py", "--benchmark", "camvid_mini", "--cfg-options", "model.protcol.window=32"],
            "protocol",
        ),
        (["configs/sclip/sclip_vitb16_openai.py", "--benchmark", "camvid_mini"], "hf download"),
    ],
)
def test_mistakes_get_one_paragraph(args, word, tmp_path):
    done = run("tools/test.py", *args, "--work-dir", tmp_path)
    assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_image_demo(tmp_path):
    done = run("demo/image_demo.py", "demo/scene.png", "naclip", "--classes", "dog", "grass", "--out-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3 and len(list(tmp_path.iterdir())) == 3
