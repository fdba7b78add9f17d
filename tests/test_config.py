"""Strict reading of MMEngine configs."""

import inspect

import pytest

from ovseg.engine.config import RUNNER_KEYS, Typed, apply_overrides, check_keys, load_config, read_dump

BASE = """
crop_size = (224, 224)
data_root = 'data/toy'
test_pipeline = [dict(type='Load'), dict(type='Crop', size=crop_size)]
test_dataloader = dict(batch_size=1, num_workers=0, dataset=dict(
    type='Toy', data_root=data_root + '/val', pipeline=test_pipeline))
val_dataloader = test_dataloader
model = dict(type='Segmentor', dense=dict(type='NACLIP'), scale=40.0, words=['cat', 'dog'], name='a', flip=False,
             aux=None)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.1))
test_cfg = dict(type='TestLoop')
_helper = 3
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(BASE)
    return path


def child(base, text):
    path = base.parent / "child.py"
    path.write_text(f"_base_ = './base.py'\n{text}")
    return path


def value_at(cfg, path):
    for key in path.split("."):
        cfg = cfg[int(key)] if isinstance(cfg, (list, tuple)) else cfg[key]
    return cfg


@pytest.mark.parametrize(
    "word, path, value",
    [
        ("model.scale=50", "model.scale", 50.0),
        ("model.words=[bus]", "model.words", ["bus"]),
        ("model.words=sky,sea", "model.words", ["sky", "sea"]),
        ("model.words.1=cow", "model.words.1", "cow"),
        ("model.name=2024", "model.name", "2024"),
        ("model.name=cat, sofa", "model.name", "cat, sofa"),
        ("model.flip=True", "model.flip", True),
        ("model.aux=3", "model.aux", 3),
        ("model.scale=None", "model.scale", None),
        ("model.dense.sigma=3", "model.dense.sigma", 3),
        ("test_dataloader.dataset.pipeline.1.size=(64,32)", "test_dataloader.dataset.pipeline.1.size", (64, 32)),
        ("work_dir=runs/a", "work_dir", "runs/a"),
    ],
)
def test_overrides_that_hold(base, word, path, value):
    found = value_at(load_config(base, [word]), path)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "word, said",
    [
        ("model.scael=50", "Did you mean 'scale'"),
        ("modle.scale=50", "Did you mean 'model'"),
        ("lr=0.2", "optim_wrapper.optimizer.lr"),
        ("model.dense.sgima=3", "'model.dense' has no key 'sgima'. Did you mean 'sigma'"),
        ("model.scale.x=3", "no 'x' inside the value 40.0"),
        ("model.words.2=cow", "position from 0 to 1"),
        ("model.words=cow", r"Write \[cow\]"),
        ("model.flip=1", r"False \(bool\), got 1 \(int\)"),
        ("test_dataloader.batch_size=1.5", r"1 \(int\), got 1.5 \(float\)"),
        ("test_dataloader.batch_size=True", r"1 \(int\), got True \(bool\)"),
        ("model.dense=NACLIP", "dict"),
        ("model.words=[cat,dog", "mbalanced"),
        ("model.scale", "key=value"),
        ("crop_size=(64,64)", r"variable of the config file.*test_dataloader\.dataset\.pipeline\.1\.size"),
    ],
)
def test_overrides_that_fail(base, word, said):
    with pytest.raises(ValueError, match=said) as caught:
        load_config(base, [word])
    assert "\n" not in str(caught.value)


def test_overrides_as_a_dict(base):
    cfg = load_config(base, {"model": {"scale": 10, "dense": {"type": "SCLIP", "_delete_": True}}, "model.name": "b"})
    assert cfg.model.scale == 10.0 and cfg.model.name == "b" and cfg.model.dense == {"type": "SCLIP"}
    with pytest.raises(ValueError, match="'a' .str., got 3"):
        load_config(base, {"model.name": 3})


def test_dataloaders_that_share_a_variable_stay_apart(base):
    cfg = load_config(base, ["test_dataloader.batch_size=4"])
    assert (cfg.test_dataloader.batch_size, cfg.val_dataloader.batch_size) == (4, 1)


def test_override_of_a_child_reaches_the_file(base):
    assert load_config(child(base, "model = dict(scale=20.0)")).model.scale == 20.0


@pytest.mark.parametrize(
    "text, said",
    [
        ("test_cgf = dict(type='Other')", "'test_cgf': Did you mean 'test_cfg'"),
        ("work_dirs = 'x/y'", "Did you mean 'work_dir'"),
        ("test_pipeline = [dict(type='Other')]", "'test_pipeline': .*test_dataloader.dataset.pipeline"),
        ("leftover = dict(a=1)", "'leftover': nothing in the config holds its value"),
    ],
)
def test_keys_that_nobody_reads(base, text, said):
    with pytest.raises(ValueError, match=said):
        load_config(child(base, text))


def test_variables_in_use_and_private_names_pass(base):
    check_keys(load_config(base))
    load_config(child(base, "_stray = 5\nnorm = dict(type='BN')\nmodel = dict(neck=dict(eps=1, **norm))"))


def test_runner_keys_cover_the_runner():
    from mmengine.runner import Runner

    assert set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} <= RUNNER_KEYS


def test_missing_file_names_a_neighbor(base):
    with pytest.raises(FileNotFoundError, match="Did you mean 'base.py'"):
        load_config(base.with_name("bsae.py"))


def test_typed_text_is_parsed_by_the_kind_it_replaces(base):
    cfg = load_config(base)
    apply_overrides(cfg, {"model.name": Typed("1,2"), "model.aux": Typed("1,2")})
    assert cfg.model.name == "1,2" and cfg.model.aux == [1, 2]


def test_the_dump_of_a_config_is_read_without_running_it(base):
    cfg = load_config(base)
    assert read_dump(cfg.pretty_text) == cfg.to_dict()
    for text in (
        "model = __import__('os').getcwd()",
        "model = dict(a=open('x'))",
        "import os",
        "model = dict(**{'a': 1})",
    ):
        with pytest.raises(ValueError, match="none is executed"):
            read_dump(text)
