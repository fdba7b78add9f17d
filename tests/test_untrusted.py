"""A file given as data never runs code: whatever it names, wherever it names it."""

import copy
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import ovseg
from ovseg.cli import app
from ovseg.compat import untrusted_types
from ovseg.compat.checkpoint import read_checkpoint_with_meta, save_safetensors
from ovseg.engine import checkpoints
from ovseg.engine.config import load_config, read_dump, self_contained
from ovseg.engine.recorded_config import detector_config
from ovseg.marks import NotOwnError
from ovseg.predict.protocol import Protocol
from ovseg.registry import DENSE, REFINERS, TRANSFORMS
from ovseg.text.templates import get_templates
from ovseg.towers import load_tower
from ovseg.towers.metadata import PROTOCOL, folder_config, own_metadata
from tests.conftest import ROOT

TINY = ROOT / "ovseg/towers/tiny_clip.safetensors"
FVIT = ROOT / "configs/fvit/fvit_windows_tiny_scenes.safetensors"
REGIONCLIP = ROOT / "configs/regionclip/regionclip_tiny_scenes.safetensors"
SCENE = ROOT / "demo/scene.png"
CANARY = "canary_of_ovseg"


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    """A module on the path that writes a file when it is imported; no test may have done so at its end."""
    folder = tmp_path / "modules"
    folder.mkdir()
    code = f"open({str(tmp_path / 'sang')!r}, 'w').close()\ndef sing(*_, **__):\n    return None\n"
    (folder / f"{CANARY}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    yield
    assert not (tmp_path / "sang").exists() and CANARY not in sys.modules


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def poisons() -> dict:
    names = [f"{CANARY}.sing", "subprocess.Popen", "os.system", "builtins.eval", "torch.hub.load"]
    names += ["mmengine.fileio.load", "mmengine.config.Config.fromfile", "mmdet.apis.init_detector", "ovseg.load"]
    found = {f"type {name}": {"type": name, "args": ["touch sang"]} for name in names}
    found |= {f"word {name}": name for name in (f"{CANARY}.sing", f"__import__('{CANARY}')", "<canary_of_ovseg>")}
    return found | {
        "custom_imports": {"custom_imports": {"imports": [CANARY]}},
        "_scope_": {"type": "PAMR", "_scope_": CANARY},
        "_delete_": {"_delete_": True, "type": f"{CANARY}.sing"},
        "_base_": {"_base_": f"{CANARY}.py"},
        "init_cfg": {"type": "FPN", "init_cfg": {"type": "Pretrained", "checkpoint": "http://localhost/x.pth"}},
        "type as a list": {"type": [f"{CANARY}.sing"]},
        "type as a mapping": {"type": {"type": f"{CANARY}.sing"}},
        "type as nothing": {"type": None},
        "a list": [[f"{CANARY}.sing"]],
        "nothing at all": None,
        "a mapping": {},
        "deep": nested(200),
        "huge": 10**5000,
        "large": 10**9,
        "negative": -1,
        "infinite": float("inf"),
        "not a number": float("nan"),
        "control": "a\n\x1b]0;b\x07",
        "path": "../../../../dev/zero",
    }


POISONS = poisons()
SHORT = ("huge", "infinite", "not a number", "nothing at all", "deep", "a list", "path", "large", "type os.system")


def slots(value, place=()):
    """Every place of a tree."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, each in list(items)[:3] if isinstance(value, (list, tuple)) else items:
        yield from slots(each, (*place, key))


def put(tree, place, value):
    if not place:
        return value
    tree = list(tree) if isinstance(tree, tuple) else copy.copy(tree)
    tree[place[0]] = put(tree[place[0]], place[1:], value)
    return tree


def is_inert(poison) -> bool:
    """A value that some slot may hold as such: a word, a number, nothing; no mapping that names a type."""
    return not isinstance(poison, dict) or not poison


def one_paragraph(error) -> bool:
    return "\n" not in str(error.value) and "\x1b" not in str(error.value) and len(str(error.value)) < 1500


FULL = {
    "name": "tower",
    "config": {
        "embed_dim": 256,
        "vision_cfg": dict(image_size=64, layers=6, width=256, head_width=64, patch_size=8, mlp_ratio=4.0),
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    },
    "quick_gelu": False,
    "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
    "card": {
        "words": ["cat"],
        "notice": "Small.",
        "protocol": {
            "short_side": 160, "max_long_side": 2048, "size": [64, 64], "window": 64, "stride": 32, "view": 64,
            "window_batch": 4, "whole_view": False, "templates": ["a {}."], "logit_scale": 40.0, "threshold": 0.1,
            "area_threshold": 0.0, "precision": "float32", "normalization": "weights", "refine_image": "original",
            "refine": ["PAMR", {"type": "MaskVote", "masks": {"type": "Superpixels", "count": 9}}, {"type": "PAMR"}],
            "memory": 2**28, "range": [0, 255], "bands": [3, 2, 1],
        },
    },
    "training": {"steps": 3},
}  # fmt: skip
FREE_WORDS = {"name", "words", "notice", "training", "timm_model_name"}


def tiny_with(path, own, **notes):
    """The embedded model with other metadata."""
    with safe_open(TINY, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        own = json.loads(file.metadata()["ovseg"]) | own
    save_safetensors(path, state, {"ovseg": json.dumps(own)} | notes)
    return str(path)


# --- the metadata of weights ------------------------------------------------------------------------------------------


def test_the_schema_of_metadata_knows_every_setting_of_the_protocol():
    assert own_metadata(json.dumps(FULL), "file")["card"]["protocol"]["refine"][0] == "PAMR"
    assert set(PROTOCOL) == set(Protocol().to_dict()) == set(FULL["card"]["protocol"])


@pytest.mark.parametrize("place", list(slots(FULL)), ids=lambda place: ".".join(map(str, place)) or "all")
def test_every_slot_of_the_metadata(place):
    for name, poison in POISONS.items():
        own = put(FULL, place, poison)
        try:
            text = json.dumps(own)
        except ValueError:  # a number too long to be written
            text = json.dumps(put(FULL, place, "@")).replace('"@"', "1" + "0" * 5000)
        try:
            read = own_metadata(text, "file")
        except ValueError as error:
            assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) < 1500, name
        else:
            assert is_inert(poison), (name, place)
            free = FREE_WORDS & set(map(str, place))
            assert free or not isinstance(poison, str) or poison not in json.dumps(read), (name, place)


@pytest.mark.parametrize("key", ["vision_cfg", "text_cfg"])
def test_open_clip_configs_fetch_nothing(key):
    for extra in ({"hf_model_name": "org/name"}, {"timm_model_pretrained": "yes", "hf_proj_type": "x"}):
        with pytest.raises(ValueError) as error:
            folder_config(json.dumps({"model_cfg": {"embed_dim": 4, key: {"width": 4} | extra}}).encode(), "config")
        assert one_paragraph(error)


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("vision_cfg", "width", 65_536),
        ("vision_cfg", "layers", 1000),
        ("vision_cfg", "image_size", 16_000),
        ("vision_cfg", "patch_size", 1),
        ("vision_cfg", "mlp_ratio", 60),
        ("vision_cfg", "head_width", 85),
        ("text_cfg", "vocab_size", 10_000_000),
        ("text_cfg", "context_length", 65_536),
        ("text_cfg", "width", 65_536),
        ("text_cfg", "heads", 3),
    ],
)
def test_sizes_that_the_tensors_do_not_have(tmp_path, part, key, value):
    config = copy.deepcopy(FULL["config"])
    config[part][key] = value
    with pytest.raises(ValueError, match=key) as error:
        load_tower(tiny_with(tmp_path / "large.safetensors", {"config": config}))
    assert one_paragraph(error)


def test_rows_of_tokens_are_ids(tmp_path):
    with safe_open(TINY, framework="pt") as file:
        state, notes = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    state["token_rows"] = state["token_rows"] + 10**6
    save_safetensors(tmp_path / "rows.safetensors", state, notes)
    with pytest.raises(ValueError, match="token_rows"):
        load_tower(tmp_path / "rows.safetensors")


def test_a_class_of_the_program_may_be_named(tmp_path, monkeypatch):
    class OwnRefiner(REFINERS.get("PAMR")):
        pass

    OwnRefiner.__module__ = "somebody.code"
    path = tiny_with(tmp_path / "own.safetensors", {"card": {"protocol": {"refine": [{"type": "OwnRefiner"}]}}})
    with pytest.raises(ValueError, match="OwnRefiner"):
        ovseg.load("naclip", path)
    monkeypatch.setitem(REFINERS.module_dict, "OwnRefiner", OwnRefiner)
    assert isinstance(ovseg.load("naclip", path).pipeline.refiners[0], OwnRefiner)


def test_options_that_open_files_are_on_no_list():
    for registry, listed in untrusted_types.ALLOWED.items():
        assert set(listed) <= set(registry.module_dict)
        for name in listed:
            for option in ("checkpoint", "model", "weights", "config", "aggregate", "correlations"):
                with pytest.raises(ValueError, match="no file may set"):
                    untrusted_types.component(registry)({"type": name, option: "x"}, "place")
    for registry, name in (
        (untrusted_types.MASKS, "SamMasks"),
        (untrusted_types.PROXIES, "TimmProxy"),
        (DENSE, "CLIPDINOiser"),
    ):
        with pytest.raises(ValueError, match="may not name"):
            untrusted_types.component(registry)({"type": name}, "place")


def test_templates_hold_one_placeholder_and_no_other():
    for template in ("{} {0.__class__}", "{} {:>999999999}", "{}{x}"):
        with pytest.raises(ValueError, match="placeholder"):
            get_templates(template)


@pytest.mark.parametrize("key", ["aggregation", "dense"])
def test_settings_of_catseg(tmp_path, key):
    for poison in ({"type": f"{CANARY}.sing"}, {"checkpoint": "x"}, [1], {"heads": 10**9, "last_n": 10**9}):
        path = tiny_with(tmp_path / "catseg.safetensors", {}, **{key: json.dumps(poison)})
        with pytest.raises(ValueError) as error:
            ovseg.load("catseg", path)
        assert one_paragraph(error)


# --- configs inside checkpoints ---------------------------------------------------------------------------------------


def recorded(path) -> tuple[dict, dict]:
    cfg = read_dump(read_checkpoint_with_meta(path)[1]["config"])
    return cfg["model"], cfg["test_dataloader"]["dataset"]["pipeline"]


def dump(model, steps=None, extra="") -> str:
    loader = f"test_dataloader = dict(dataset={dict(pipeline=steps)!r})\n"
    return f"model = {model!r}\n{loader if steps is not None else ''}{extra}"


FULL_FVIT = recorded(FVIT)[0] | dict(
    backbone=dict(dense=dict(type="ProxyCLIP", proxy=dict(type="TowerProxy")), norm_cfg=dict(type="BN")),
    data_preprocessor=dict(type="mmdet.DetDataPreprocessor", mean=[1, 2, 3], std=[1, 2, 3]),
    roi_head=dict(
        type="ovseg.FViTRoIHead",
        bbox_head=dict(type="ovseg.FViTBBoxHead", loss_cls=dict(type="mmdet.CrossEntropyLoss")),
        bbox_roi_extractor=dict(type="mmdet.SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=7)),
        mask_head=dict(type="mmdet.FCNMaskHead", num_convs=2),
    ),
    neck=dict(type="mmdet.FPN", norm_cfg=dict(type="GN", num_groups=8)),
    rpn_head=dict(type="mmdet.RPNHead", anchor_generator=dict(type="AnchorGenerator", scales=[8])),
    test_cfg=dict(rpn=dict(nms=dict(type="nms", iou_threshold=0.5)), rcnn=dict(nms=dict(type="soft_nms"))),
)
FIRST = load_config(ROOT / "configs/regionclip/regionclip_r50_ovcoco.py").model.to_dict()
MODELS = {
    "FViT": FULL_FVIT,
    "RegionCLIP": recorded(REGIONCLIP)[0] | dict(test_cfg=dict(nms=dict(type="nms", iou_threshold=0.5))),
    "RegionCLIP with a frozen network": FIRST,
    "EdaDet": dict(
        type="EdaDet", vocabulary=["a", "b"], unseen=["a"], refiner=dict(width=8), test_cfg=dict(nms=dict(type="nms"))
    ),
}
FREE = {"vocabulary", "unseen", "background", "weights", "arch", "checkpoint", "train_cfg"}


@pytest.mark.parametrize("name", MODELS)
def test_every_slot_of_a_model(name):
    kind, steps = name.partition(" ")[0], recorded(FVIT)[1]
    read, _ = detector_config(dump(MODELS[name], steps), "file", kind, {})
    assert read["type"] == kind and "train_cfg" not in read
    for place in slots(MODELS[name]):
        for word, poison in POISONS.items():
            if word in ("huge", "infinite", "not a number") or set(map(str, place)) & {"train_cfg", "checkpoint"}:
                continue  # not literals, or dropped unread
            try:
                read, _ = detector_config(dump(put(MODELS[name], place, poison), steps), "file", kind, {})
            except ValueError as error:
                assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) < 1500, word
            else:
                assert is_inert(poison), (word, place)
                free = FREE & set(map(str, place))
                assert free or not isinstance(poison, str) or poison not in str(read), (word, place)


def test_every_slot_of_the_steps():
    model, steps = recorded(FVIT)
    for place in slots(steps):
        for word, poison in POISONS.items():
            if word in ("huge", "infinite", "not a number"):
                continue
            try:
                _, read = detector_config(dump(model, put(steps, place, poison)), "file", "FViT", {})
            except ValueError as error:
                assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) < 1500, word
            else:
                assert is_inert(poison) and (
                    not isinstance(poison, str) or "meta_keys" in place or "Load" in str(place)
                )


def test_what_else_a_config_says_is_dropped():
    model, steps = recorded(FVIT)
    extra = f"custom_imports = dict(imports=['{CANARY}'])\ncustom_hooks = [dict(type='{CANARY}.sing')]\n_base_ = 'x'\n"
    assert detector_config(dump(model, steps, extra), "file", "FViT", {}) == detector_config(
        dump(model, steps), "file", "FViT", {}
    )


@pytest.mark.parametrize(
    "text",
    [
        f"import {CANARY}",
        f"with read_base():\n    import {CANARY}",
        f"model = __import__('{CANARY}')",
        "model = [" * 5000,
        "model = " + "-" * 50_000 + "1",
        "model = {[]: 1}",
        b"model = 1",
        None,
        {"model": 1},
        "filename = 'x'",
    ],
)
def test_configs_that_are_none(text):
    with pytest.raises(ValueError) as error:
        detector_config(text, "file", "FViT", {})
    assert one_paragraph(error)


def test_an_nms_is_a_word_of_two(tmp_path):
    path = fvit_with(
        tmp_path, lambda model: model["test_cfg"]["rcnn"]["nms"].update(type=f"__import__('{CANARY}').sing")
    )
    with pytest.raises(ValueError, match="nms.type"):
        ovseg.load("fvit", path)


def fvit_with(tmp_path, change, steps=lambda steps: steps):
    """The checkpoint of F-ViT with another config inside."""
    state, notes = read_checkpoint_with_meta(FVIT)
    model, own = recorded(FVIT)
    change(model)
    path = tmp_path / "changed.safetensors"
    save_safetensors(path, state, notes | {"config": dump(model, steps(own))})
    return str(path)


def test_sizes_are_those_of_the_tensors_before_anything_is_built(tmp_path):
    path = fvit_with(tmp_path, lambda model: model["neck"].update(out_channels=65_536, norm_cfg=dict(type="BN")))
    with pytest.raises(ValueError, match="does not fit|channels") as error:
        ovseg.load("fvit", path)
    assert one_paragraph(error)


def test_files_that_a_checkpoint_names(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret\n")
    for key, value in {"vocabulary": str(secret), "unseen": str(secret), "weights": str(secret)}.items():
        path = fvit_with(tmp_path, lambda model, key=key, value=value: model.update({key: value}))
        with pytest.raises(ValueError, match=key) as error:
            ovseg.load("fvit", path)
        assert one_paragraph(error)
    for weights in ("http://localhost/x.pth", "//host/share/x.pth", "hf-hub:nobody/nothing", "/dev/zero"):
        path = fvit_with(tmp_path, lambda model, weights=weights: model.update(weights=weights))
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            ovseg.load("fvit", path)
        assert one_paragraph(error)


def test_a_run_records_its_classes_and_not_their_file(tmp_path):
    (tmp_path / "own.txt").write_text("cat, kitten\ndog\n")
    cfg = load_config(FVIT.with_suffix(".py"))
    assert self_contained(cfg) == cfg.pretty_text
    cfg.model.vocabulary, cfg.model.unseen = str(tmp_path / "own.txt"), ["dog"]
    model = read_dump(self_contained(cfg))["model"]
    assert model["vocabulary"] == [{"name": "cat", "synonyms": ["kitten"]}, "dog"] and model["unseen"] == ["dog"]


def test_a_transform_of_the_program(tmp_path, monkeypatch):
    class OwnStep(TRANSFORMS.get("mmdet.Resize")):
        pass

    OwnStep.__module__ = "somebody.code"
    model, steps = recorded(FVIT)
    own = [dict(step, type="OwnStep") if step["type"] == "mmdet.Resize" else step for step in steps]
    with pytest.raises(ValueError, match="OwnStep"):
        detector_config(dump(model, own), "file", "FViT", {})
    monkeypatch.setitem(TRANSFORMS.module_dict, "OwnStep", OwnStep)
    assert detector_config(dump(model, own), "file", "FViT", {})[1][0]["type"] == "OwnStep"


# --- states of runs ---------------------------------------------------------------------------------------------------

STATE = dict(
    iterations=1, epochs=0, world_size=1, optimizer={}, param_schedulers=[], averages={}, random={}, info={},
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        dict(info={"keep_ckpt_ids": ["../../../victim"]}),
        dict(info={"best_ckpt": "/home/victim"}),
        dict(info={"best_ckpt": "../best_../victim"}),
        dict(info={"hooks": "x"}),
        dict(iterations="many"),
        dict(world_size=[1]),
        dict(more=1),
        dict(optimizer=[1]),
    ],
)
def test_states_that_lead_out_of_the_folder(tmp_path, change):
    torch.save(STATE | change, tmp_path / "iter_1.state")
    with pytest.raises(ValueError) as error:
        checkpoints.load_state(tmp_path / "iter_1.safetensors")
    assert one_paragraph(error)


def test_states_that_are_none(tmp_path):
    torch.save(
        STATE | dict(info={"keep_ckpt_ids": [1, 2], "best_ckpt": "/old/run/best_iou_iter_1.pth"}), tmp_path / "a.state"
    )
    assert checkpoints.load_state(tmp_path / "a.safetensors")["info"] == {
        "keep_ckpt_ids": [1, 2], "best_ckpt": "best_iou_iter_1.pth"
    }  # fmt: skip
    torch.save({"iterations": 1}, tmp_path / "b.state")
    with pytest.raises(ValueError, match="lacks"):
        checkpoints.load_state(tmp_path / "b.safetensors")
    torch.save(Runs(str(tmp_path / "sang")), tmp_path / "c.state")
    with pytest.raises(ValueError, match="cannot read weights"):
        checkpoints.load_state(tmp_path / "c.safetensors")


class Runs:
    """A pickle that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_mmengine_does_not_unpickle_what_a_config_names(tmp_path):
    from mmengine.runner.checkpoint import CheckpointLoader

    import ovseg.segmentors  # noqa: F401

    torch.save({"state_dict": {"w": torch.ones(1)}, "more": Runs(str(tmp_path / "sang"))}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="can run any code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"))
    torch.save({"w": torch.ones(1)}, tmp_path / "good.pth")
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "good.pth"))["state_dict"]["w"] == 1


# --- results, boxes, vocabularies -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    ovseg.load("maskclip")(SCENE, "owl, bus").save(folder, formats=("json", "scores"))
    ovseg.load_detector("maskclip", short_side=64)(SCENE, "owl, bus").save(folder)
    return folder


@pytest.mark.parametrize("name, kind", [("scene.json", ovseg.Result), ("scene_detections.json", ovseg.Detections)])
def test_every_slot_of_a_result(saved, tmp_path, name, kind):
    whole = json.loads((saved / name).read_text())
    kind.load(saved / name)
    (whole["image"] if "image" in whole else whole["images"][0])["path" if "image" in whole else "file_name"] = None
    for place in slots(whole):
        for word, poison in ((word, POISONS[word]) for word in SHORT):
            if word in ("huge", "deep"):
                text = json.dumps(put(whole, place, "@")).replace('"@"', "9" * 5000 if word == "huge" else "[" * 10**5)
            else:
                text = json.dumps(put(whole, place, poison))
            (tmp_path / "other.json").write_text(text)
            try:
                read = kind.load(tmp_path / "other.json")
            except ValueError as error:
                assert len(str(error)) < 3000, word
            else:
                assert isinstance(read, kind)


def test_scores_that_unpack_to_more_than_the_picture(saved, tmp_path):
    (tmp_path / "scene.json").write_bytes((saved / "scene.json").read_bytes())
    np.savez_compressed(tmp_path / "scene_scores.npz", scores=np.zeros((4000, 4000), np.float32))
    with pytest.raises(ValueError, match="unpacks to"):
        ovseg.Result.load(tmp_path / "scene.json")


@pytest.mark.parametrize("content", ["[" * 10**5, "[]", "3", '{"protocol": 3}', '{"protocol": {}, "weights": []}'])
def test_resume_passes_over_what_is_no_result(content, tmp_path):
    (tmp_path / "scene.json").write_text(content)
    run = ["predict", str(SCENE), "-c", "owl", "-m", "maskclip", "-o", str(tmp_path), "--resume"]
    refused = CliRunner().invoke(app, run)
    assert isinstance(refused.exception, NotOwnError) and (tmp_path / "scene.json").read_text() == content
    done = CliRunner().invoke(app, [*run, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "scene.json").read_text())["format"] == "ovseg-result"


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".txt"])
def test_vocabularies(tmp_path, suffix):
    path = tmp_path / f"words{suffix}"
    texts = ["[" * 10**5, "!!python/object/apply:os.system ['touch sang']", '{"classes": [{"type": "os.system"}]}']
    for text in texts if suffix != ".txt" else texts[:1]:
        path.write_text(text)
        try:
            ovseg.Vocabulary.parse(path)
        except ValueError as error:
            assert len(str(error)) < 1500 + 2 * len(texts[1])


# --- the three kinds of files through every verb ----------------------------------------------------------------------

REFINE = [{"type": "subprocess.Popen", "args": ["touch", "sang"]}, {"type": f"{CANARY}.sing"}]


def crafted(tmp_path) -> dict[str, str]:
    from tests.test_torchscript import Restores, script

    card = {"card": {"protocol": {"refine": REFINE}}}
    script(Restores(), tmp_path / "archive.pt")
    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Runs(str(tmp_path / "sang"))}, tmp_path / "pickle.pth")
    steps = fvit_with(tmp_path, lambda model: None, lambda own: [REFINE[0], *own])
    return {
        "metadata": tiny_with(tmp_path / "metadata.safetensors", card),
        "archive": str(tmp_path / "archive.pt"),
        "pickle": str(tmp_path / "pickle.pth"),
        "checkpoint": steps,
    }


VERBS = {
    "predict": ["-c", "owl", "-m", "maskclip"],
    "detect": ["-c", "owl"],
    "detect fvit": ["-c", "owl", "-m", "fvit"],
    "compare": ["-c", "owl", "-m", "maskclip"],
    "explain": ["-c", "owl"],
    "locate": ["-p", "owl"],
    "classify-boxes": ["-c", "owl", "--boxes", "boxes.json"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_crafted_files_through_the_verbs(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.json").write_text("[[1, 1, 50, 50]]")
    for kind, path in crafted(tmp_path).items():
        words = [verb.partition(" ")[0], str(SCENE), *VERBS[verb], "--weights", path]
        done = CliRunner().invoke(app, words)
        assert done.exit_code != 0 and "Traceback" not in done.output, (kind, done.output)
        assert done.exception is None or isinstance(done.exception, (SystemExit, ValueError)), (kind, done.exception)
        assert "No such option" not in done.output and "Missing" not in done.output, done.output
        assert "\n\n" not in str(done.exception) and not list(tmp_path.glob("**/*.png")), done.exception
    assert not (tmp_path / "sang").exists()


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("kind", ["archive", "pickle"])
def test_crafted_files_through_the_tools(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    path, config, out = crafted(tmp_path)[kind], "configs/catseg/catseg_tiny_scenes.py", str(tmp_path / "out")
    calls = {
        "test": [config, "--checkpoint", path, "--work-dir", out, "--limit", "1", "--benchmark", "scenes_seen_v20"],
        "export": [config, path, str(tmp_path / "out.safetensors")],
        "train": [config, "--work-dir", out, "--resume", path],
    }
    (tmp_path / path).with_suffix(".state").write_bytes((tmp_path / path).read_bytes())
    for name, words in calls.items():
        assert tool(name)(words) == 2, name
        said = capsys.readouterr().err
        assert "cannot read weights" in said or "expected a mapping" in said or "no file may set" in said, (name, said)
    assert tool("train")([config, "--work-dir", out, "--cfg-options", f"load_from={path}"]) == 2
    assert not (tmp_path / "sang").exists()


def test_a_program_may_name_what_it_likes(tmp_path):
    """Configs in Python are programs, and so are arguments: dotted names work there."""
    predictor = ovseg.load("maskclip", refine=[dict(type="ovseg.refine.pamr.PAMR", steps=1)])
    assert type(predictor.pipeline.refiners[0]).__name__ == "PAMR"
