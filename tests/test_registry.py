"""Registries: lazy, cheap to import, and helpful when a name or an argument does not exist."""

import subprocess
import sys

import pytest
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from ovseg import registry
from ovseg.registry import (
    DENSE,
    METRICS,
    MODELS,
    TRANSFORMS,
    Registry,
    accepted_keys,
    check_components,
    names,
    registered_in,
)


class Base:
    def __init__(self, depth, width=8):
        self.depth, self.width = depth, width


class Child(Base):
    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain


class Open:
    def __init__(self, **anything):
        self.anything = anything


@pytest.fixture
def toys():
    toys = Registry("toy")
    for kind in (Base, Child, Open):
        toys.register_module(module=kind)
    return toys


@pytest.fixture
def neck():
    """A component in MODELS for one test."""
    MODELS._imported = True
    MODELS.register_module(name="ToyNeck", module=Child, force=True)
    yield "ToyNeck"
    del MODELS.module_dict["ToyNeck"]
    MODELS._imported = False


def test_import_brings_no_model_code():
    heavy = ["torch", "mmseg", "mmdet", "open_clip", "ovseg.dense", "ovseg.datasets.register"]
    code = f"import ovseg.registry, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dense_names_without_building():
    assert {"NACLIP", "SCLIP", "ClearCLIP"} <= set(names(DENSE))
    assert "NACLIP" in DENSE and "ovseg.NACLIP" in DENSE and "NoSuch" not in DENSE


def test_every_mmengine_root_has_an_ovseg_child():
    assert all(root.children["ovseg"] is registry.CHILDREN[name] for name, root in registry.ROOTS.items())


@pytest.mark.parametrize(
    "where, asked, said",
    [
        (DENSE, "NACLP", ["'NACLP'", "ovseg::dense extractor", "NACLIP"]),
        (DENSE, "mmseg.NACLIP", ["write 'NACLIP'"]),
        (METRICS, "IoUMetric", ["write 'mmseg.IoUMetric'"]),
        (TRANSFORMS, "PackSegInput", ["mmseg.PackSegInputs"]),
        (TRANSFORMS, "mmseg.PackSegInput", ["mmseg.PackSegInputs"]),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(where, asked, said):
    with pytest.raises(KeyError) as caught:
        where.build(dict(type=asked))
    message = str(caught.value)
    assert all(part in message for part in said) and "\n" not in message


def test_unknown_name_through_the_root_and_the_default_scope():
    with DefaultScope.overwrite_default_scope("ovseg"), pytest.raises(KeyError, match="ovseg::model"):
        MMENGINE_MODELS.build(dict(type="NoSuchHeadAnywhere"))
    with pytest.raises(KeyError, match="ovseg::model"):
        MMENGINE_MODELS.build(dict(type="ovseg.NoSuchHeadAnywhere"))


def test_a_bare_name_is_never_imported_as_a_module(tmp_path, monkeypatch):
    (tmp_path / "gem_of_the_user.py").write_text("raise SystemExit('was executed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyError):
        DENSE.get("gem_of_the_user")


def test_a_dotted_path_still_finds_a_class():
    assert DENSE.get("collections.OrderedDict").__name__ == "OrderedDict"


def test_own_registries_ignore_the_default_scope(caplog):
    with DefaultScope.overwrite_default_scope("mmseg"):
        assert DENSE.build(dict(type="NACLIP", sigma=3.0)).sigma == 3.0
    assert "Failed to search" not in caplog.text


def test_a_missing_optional_package_is_named():
    toys = Registry("toy", locations=["ovseg.no_such_room"])
    with pytest.raises(KeyError, match=r"ovseg\.no_such_room could not be imported"):
        toys.get("Anything")


@pytest.mark.parametrize("key, near", [("widht", "width"), ("gian", "gain"), ("dept", "depth")])
def test_unknown_argument_names_the_nearest(toys, key, near):
    with pytest.raises(ValueError, match=f"Child .* no argument '{key}'. Did you mean '{near}'"):
        toys.build({"type": "Child", "depth": 1, key: 2})


def test_known_arguments_build(toys):
    built = toys.build(dict(type="Child", depth=2, gain=0.5))
    assert (built.depth, built.width, built.gain) == (2, 8, 0.5)
    assert toys.build(dict(type=Child, depth=3)).depth == 3
    assert toys.build(dict(type="Open", whatever=1)).anything == {"whatever": 1}


def test_accepted_keys():
    assert accepted_keys(Child) == ("gain", "depth", "width")
    assert accepted_keys(Base) == ("depth", "width")
    assert accepted_keys(Open) is None
    assert accepted_keys(lambda a, *, b: 0) == ("a", "b")


def test_check_components_names_the_place(neck):
    config = dict(model=dict(necks=[dict(type=neck, depth=1), dict(type=neck, depht=1)]))
    with pytest.raises(ValueError, match=r"model\.necks\.1: .*Did you mean 'depth'"):
        check_components(config)
    check_components(config, scope="mmseg")  # a bare name means mmseg's there
    with pytest.raises(ValueError, match="depth"):
        check_components(dict(model=dict(type=f"ovseg.{neck}", depht=1)), scope="mmseg")
    with pytest.raises(ValueError, match=r"model\.dense: NACLIP .*'sigma'"):
        check_components(dict(model=dict(type="mmseg.EncoderDecoder", dense=dict(type="NACLIP", sigm=2.0))), "mmseg")


PACKAGE = {
    "__init__": "from ovseg.registry import Registry\nMETHODS = Registry('method', locations=['found_methods.*'])",
    "broken": "import no_such_package_at_all",
    "whole": "from found_methods import METHODS\n@METHODS.register_module()\nclass Whole: ...",
}


def test_a_package_is_searched_module_by_module(tmp_path, monkeypatch):
    (tmp_path / "found_methods").mkdir()
    for name, code in PACKAGE.items():
        (tmp_path / "found_methods" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from found_methods import METHODS

    with pytest.warns(UserWarning, match="found_methods.broken is left out.*no_such_package_at_all"):
        assert names(METHODS) == ("Whole",)
    with pytest.raises(KeyError, match="found_methods.broken could not be imported"):
        METHODS.get("Broken")
    find = registered_in("found_methods", METHODS)
    assert find("Whole") is METHODS.get("Whole")
    for name in ("whole", "Other", "__path__"):  # modules stay modules
        with pytest.raises(AttributeError, match=name):
            find(name)
