"""The package as people install it: public names, configs by name, extras, and lists that need no PyTorch."""

import subprocess
import sys

import pytest

import ovseg
from ovseg.apis.catalog import declared
from ovseg.apis.load import TrainedDetectorName
from ovseg.compat.config_scope import config_files, find_config
from ovseg.compat.extras import EXTRAS, MissingExtra, require
from ovseg.engine.config import load_config
from ovseg.registry import DENSE, MODELS, REFINERS, SCORERS, check_components, named


def test_public_names_are_listed_and_there():
    assert set(ovseg.__all__) <= set(dir(ovseg))
    assert all(getattr(ovseg, name) is not None for name in ovseg.__all__)


@pytest.mark.parametrize("name, registry", [("DENSE", DENSE), ("REFINERS", REFINERS), ("SCORERS", SCORERS)])
def test_the_catalog_tells_what_the_classes_are(name, registry):
    live = named(registry)
    own = {key: kind for key, kind in live.items() if kind.__module__.startswith("ovseg.")}
    assert {each.name for each in declared(name)} == set(own)
    for each in declared(name):
        kind = own[each.name]
        for attribute in ("paper", "protocol", "needs", "tuned", "in_weights", "requires"):
            if hasattr(kind, attribute):
                assert each.attributes[attribute] == getattr(kind, attribute), (each.name, attribute)


def test_the_catalog_knows_the_trained_models():
    own = {each.name: each for each in declared("MODELS") if "name" in each.own}
    live = named(MODELS)
    assert set(own) == set(live)
    assert all(own[name].attributes.get("loader") == getattr(live[name], "loader", None) for name in live)
    assert {name for name in live if getattr(live[name], "loader", None)} == set(TrainedDetectorName.__args__)


@pytest.mark.parametrize("verb", [("methods",), ("configs",), ("--help",), ("train", "--help")])
def test_lists_need_no_pytorch(verb):
    code = (
        "import sys; from ovseg.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code"
    )
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'open_clip', 'mmcv', 'mmseg', 'mmdet')))\n"
    done = subprocess.run([sys.executable, "-c", blocked + code, *verb], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("name", ["naclip_tiny", "naclip/naclip_tiny.py", "ovseg::naclip/naclip_tiny.py"])
def test_a_config_is_found_by_its_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == config_files()["naclip_tiny"]
    assert find_config("configs/naclip/naclip_tiny.py") == config_files()["naclip_tiny"]


@pytest.mark.parametrize("name", ["../configs/naclip/naclip_tiny", "naclip_tny", "ovseg::../registry.py", "naclip"])
def test_other_names_are_no_configs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="`ovseg configs` lists"):
        find_config(name)


INHERITED = {
    "base.py": '_base_ = "ovseg::naclip/naclip_tiny.py"\nmodel = dict(dense=dict(sigma=3.0))\n',
    "lazy.py": "from mmengine.config import read_base\nwith read_base():\n    from ovseg.configs.naclip.naclip_tiny "
    "import *\nmodel.update(dict(dense=dict(type='NACLIP', sigma=3.0)))\n",
}


@pytest.mark.parametrize("name", INHERITED)
def test_a_config_of_ones_own_inherits_ours(name, tmp_path):
    (tmp_path / name).write_text(INHERITED[name])
    cfg = load_config(tmp_path / name)
    assert cfg.model.dense == dict(type="NACLIP", sigma=3.0) and cfg.default_scope == "ovseg"
    check_components(cfg, cfg.default_scope)


def test_mmengine_finds_our_configs():
    from mmengine.hub import get_config

    assert get_config("ovseg::naclip/naclip_tiny.py").model.dense.type == "NACLIP"
    assert get_config("ovseg::_base_/runtime.py").default_scope == "ovseg"


def test_a_missing_extra_is_one_sentence(monkeypatch):
    require("mm", "ovseg train")
    monkeypatch.setitem(EXTRAS, "mm", ("mmcv", "no_such_module"))
    with pytest.raises(MissingExtra, match=r'ovseg train needs no_such_module: pip install "ovseg\[mm\]"'):
        require("mm", "ovseg train")
