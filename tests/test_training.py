"""Training: a killed run resumes to the weights of an uninterrupted one, two processes do what one does with twice the
batch, checkpoints hold what trains and nothing else, and mistakes are told."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from ovseg.compat.checkpoint import read_checkpoint, read_checkpoint_with_meta
from ovseg.datasets.seeded import SeededDataset, SeededSampler
from ovseg.engine import checkpoints
from ovseg.engine.launch import start_processes
from ovseg.engine.trainer import Trainer
from ovseg.registry import MODELS
from ovseg.rng import random_states, set_random_states
from tests.conftest import ROOT

CONFIG = """
_base_ = r"{base}"
model = dict(
    type="DenseTuning", dense=dict(type="SCLIP"), weights="tiny", vocabulary={words},
    tuning=[dict(type="LoRA", rank=2)], protocol=dict(templates="name", short_side=64, window=None),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="SeededSampler", seed=3),
    collate_fn=dict(type="mmengine.pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="ComposedScenes", count=20, first_seed=5, pipeline=[
                dict(type="LoadScene"),
                dict(type="mmseg.RandomCrop", crop_size=(64, 64)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="mmseg.PackSegInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
    collate_fn=dict(type="mmengine.pseudo_collate"), dataset=dict(type="ComposedScenes", count=1),
)
val_evaluator = dict(type="OpenVocabIoU")
val_cfg = dict(type="mmengine.ValLoop")
train_cfg = dict(type="TrainLoop", max_iters=8, val_interval=4)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=8, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=2))
custom_hooks = [dict(type="EMAHook", momentum=0.5)]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from ovseg.datasets.scenes import object_names, stuff_names

    path = tmp_path_factory.mktemp("config") / "toy.py"
    words = [*object_names(), *stuff_names()]
    path.write_text(CONFIG.format(base=ROOT / "configs/_base_/train.py", words=words))
    return path


def trained(config, folder, **changes):
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.launcher, cfg.experiment_name = str(folder), "none", f"{folder.name}-{time.time_ns()}"
    for key, value in changes.items():
        cfg.merge_from_dict({key.replace("__", "."): value})
    start_processes(cfg)
    trainer = Trainer.from_cfg(cfg)
    trainer.train()
    return trainer


def start(config, *args, processes=1):
    """tools/train.py as a process; the embeddings of all runs of one config come from one cache, to the last bit."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    env = dict(os.environ, OVSEG_CACHE=str(Path(config).with_name("cache")))
    command = [*launch, "tools/train.py", *map(str, (config, *args))]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(run):
    """(output, errors) of a run that must succeed."""
    out, errors = run.communicate()
    assert run.returncode == 0, errors[-3000:]
    return out, errors


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    out, _ = finish(start(config, "--work-dir", folder))
    assert re.search(r"pipeline.tower: 12,288 of [\d,]+ parameters train", out)
    return folder


def same(a, b, tolerance=0.0):
    first, second = read_checkpoint(a), read_checkpoint(b)
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(config, whole, tmp_path):
    half = tmp_path / "run" / "iter_4.safetensors"
    run = start(config, "--work-dir", half.parent)
    while not half.exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert checkpoints.latest(half.parent) == half
    out, errors = finish(start(config, "--work-dir", half.parent, "--resume"))
    assert "resumed from" in out + errors
    same(half.parent / "iter_8.safetensors", whole / "iter_8.safetensors")
    states = [checkpoints.load_state(folder / "iter_8.safetensors") for folder in (tmp_path / "run", whole)]
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])
    assert states[0]["averages"].keys() == states[1]["averages"].keys() and len(states[0]["averages"]) > 1


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(config, tmp_path):
    """With SGD: it shows gradients of a wrong scale, and leaves rounding as small as it is."""
    sgd = 'type="SGD", lr=0.2, momentum=0.9'
    changed = config.with_name("sgd.py")
    changed.write_text(config.read_text().replace('type="AdamW", lr=1e-3', sgd))
    assert sgd in changed.read_text()
    options = ["train_cfg.max_iters=20", "param_scheduler.0.end=20", "train_cfg.val_interval=50"]
    options = ["--cfg-options", *options, "train_dataloader.batch_size="]
    two = [*options[:-1], options[-1] + "1", "--launcher", "pytorch"]
    runs = [
        start(changed, "--work-dir", tmp_path / "two", *two, processes=2),
        start(changed, "--work-dir", tmp_path / "one", *options[:-1], options[-1] + "2"),
    ]
    for run in runs:
        finish(run)
    same(tmp_path / "one" / "iter_20.safetensors", tmp_path / "two" / "iter_20.safetensors", 1e-4)
    learned = [
        value for name, value in read_checkpoint(tmp_path / "one" / "iter_20.safetensors").items() if ".up" in name
    ]
    assert max(value.abs().max() for value in learned) > 0.02  # they began with zeros: far more than the tolerance


def test_a_checkpoint_holds_what_trains(whole):
    path = whole / "iter_8.safetensors"
    state, notes = read_checkpoint_with_meta(path)
    assert all("parametrizations" in name for name in state) and path.stat().st_size < 200_000
    assert list(json.loads(notes["towers"]).values())[0].startswith("ovseg-tiny-scenes (")
    assert notes["iterations"] == "8" and "DenseTuning" in notes["config"]
    assert sorted(p.name for p in whole.glob("iter_*")) == [
        "iter_4.safetensors", "iter_4.state", "iter_8.safetensors", "iter_8.state",
    ]  # fmt: skip
    curve = next(whole.glob("*/vis_data/scalars.json")).read_text()
    assert '"mIoU"' in curve


def test_a_checkpoint_loads_into_its_model_and_no_other(whole, config):
    path, cfg = whole / "iter_8.safetensors", Config.fromfile(config).model
    model = MODELS.build(cfg)
    assert checkpoints.load_weights(path, model)["missing"] == []
    stored = read_checkpoint(path)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in stored.items())
    with pytest.raises(ValueError, match="does not fit this model.*instead of"):
        checkpoints.load_weights(path, MODELS.build(dict(cfg, tuning=[dict(type="LoRA", rank=3)])))
    with pytest.raises(ValueError, match="unexpected.*tuning presets"):
        checkpoints.load_weights(path, MODELS.build(dict(cfg, tuning=[dict(type="Norms")])))
    model.tower.card = type(model.tower.card)(name="another", hash="123")
    with pytest.raises(ValueError, match="ovseg-tiny-scenes.*stands on another"):
        checkpoints.load_weights(path, model)


def test_foreign_weights(tmp_path):
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    torch.save({"a.weight": torch.ones(2, 2), "c": torch.ones(1)}, tmp_path / "part.pth")
    notes = checkpoints.load_weights(tmp_path / "part.pth", model)
    assert notes["unexpected"] == ["c"] and "b.weight" in notes["missing"] and (model["a"].weight == 1).all()
    torch.save({"c": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="nothing of this model"):
        checkpoints.load_weights(tmp_path / "none.pth", model)


def test_resuming_with_other_processes_or_without_a_state(config, whole, tmp_path):
    import shutil

    for name in ("iter_4.safetensors", "iter_4.state"):
        shutil.copy(whole / name, tmp_path / name)
    state = checkpoints.load_state(tmp_path / "iter_4.safetensors")
    checkpoints.save_state(tmp_path / "iter_4.state", state | {"world_size": 3})
    with pytest.raises(ValueError, match="written by 3 process"):
        trained(config, tmp_path, resume=True)
    (tmp_path / "iter_4.state").unlink()
    with pytest.raises(ValueError, match="cannot be resumed from"):
        trained(config, tmp_path, resume=True, load_from=str(tmp_path / "iter_4.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "args, word",
    [
        (["configs/sclip/sclip_tiny.py"], "not trained"),
        (["configs/nothing.py"], "No config file"),
        (["CONFIG", "--amp"], "--amp needs a GPU"),
        (["CONFIG", "--cfg-options", "optim_wrapper.optimzer.lr=1"], "optimizer"),
    ],
)
def test_mistakes_get_one_paragraph(args, word, config, tmp_path):
    run = start(*(config if arg == "CONFIG" else arg for arg in args), "--work-dir", tmp_path)
    _, errors = run.communicate()
    assert run.returncode == 2 and word in errors and "Traceback" not in errors, errors


def test_unseen_classes_are_ignored_and_ids_out_of_range_are_named(config):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    def sample(*ids):
        return SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([[ids]])))

    cfg = dict(Config.fromfile(config).model, vocabulary=["cat", "dog", "sky"])
    model = MODELS.build(dict(cfg, unseen=["dog"]))
    assert model.train_vocabulary.names == ("cat", "sky") and model.words().shape[0] == 2
    assert model.labels([sample(0, 1, 2, 255)]).tolist() == [[[0, 255, 1, 255]]]
    with pytest.raises(ValueError, match=r"the labels hold \[3\].*check-data"):
        model.labels([sample(0, 3)])
    with pytest.raises(ValueError, match="unseen: bird"):
        MODELS.build(dict(cfg, unseen=["bird"])).labels([sample(0)])
    with pytest.raises(ValueError, match="one size"):
        model.images([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)])
    with pytest.raises(ValueError, match="nothing to train"):
        MODELS.build(dict(cfg, tuning=[]))
    ignored = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    void = SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 64, 64), 255)))
    assert model.loss(ignored, [void])["loss_ce"] == 0


class Drawn:
    """Random numbers instead of pictures."""

    metainfo = {}

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def test_draws_depend_on_seed_and_number_alone():
    def draws(count, skip=0, seed=1, rank=0, world_size=1):
        data = SeededDataset(Drawn())
        sampler = SeededSampler(data, seed=seed)
        sampler.rank, sampler.world_size = rank, world_size
        sampler.skip(skip)
        iterator = iter(sampler)
        return [data[next(iterator)] for _ in range(count)]

    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = draws(12)
    assert torch.equal(torch.get_rng_state(), before)
    assert whole == draws(12) and whole[7:] == draws(5, skip=7) and whole != draws(12, seed=2)
    assert whole[0::2] == draws(6, rank=0, world_size=2) and whole[3::2] == draws(5, skip=1, rank=1, world_size=2)
    assert sorted(index for index, *_ in whole[:5]) == list(range(5)) and len({draw[1:] for draw in whole}) == 12
    with pytest.raises(ValueError, match="SeededDataset"):
        SeededSampler(Drawn())


def test_random_states_come_back():
    states = random_states()
    drawn = random.random(), np.random.rand(), torch.rand(2)
    set_random_states(states)
    again = random.random(), np.random.rand(), torch.rand(2)
    assert drawn[:2] == again[:2] and torch.equal(drawn[2], again[2])
