"""One assembly: every entry point takes the same names and options, and none is dropped."""

import subprocess
import sys

import pytest
import torch

import ovseg
from ovseg.apis.compare import Comparer
from ovseg.apis.methods import choices, list_methods
from ovseg.predict.build import assemble, build, choose_tower, trained_model
from ovseg.registry import DENSE, MODELS, REFINERS, SCORERS, component_name, find_named, named, names, normalize_name

from .conftest import ROOT

FVIT = str(ROOT / "configs/fvit/fvit_windows_tiny_scenes.safetensors")
CATSEG = ROOT / "configs/catseg/catseg_tiny_scenes.py"
SPELLINGS = ("clip_surgery", "CLIP-Surgery", "clip surgery", "clipsurgery", "CLIPSurgery")
QUICK = dict(templates="name", cache=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What tools/export.py makes of the trained CAT-Seg."""
    out = tmp_path_factory.mktemp("export") / "catseg.safetensors"
    command = [sys.executable, "tools/export.py", CATSEG, CATSEG.with_suffix(".safetensors"), out]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(out)


class TestNames:
    @pytest.mark.parametrize("registry", [DENSE, REFINERS, SCORERS], ids=lambda registry: registry.name)
    def test_every_component_has_a_name_of_its_own(self, registry):
        for kind in names(registry):
            component = registry.module_dict[kind]
            assert vars(component).get("name") == component_name(component), f"{kind} has no name"
            assert component.name == component.name.lower() and " " not in component.name
            assert find_named(registry, kind) is find_named(registry, component.name.upper()) is component
        assert len(named(registry)) == len({normalize_name(name) for name in named(registry)}) == len(names(registry))

    def test_a_variant_of_a_user_does_not_take_its_parents_name(self):
        class Sharper(DENSE.get("NACLIP")):
            pass

        assert component_name(Sharper) == "sharper"

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_every_entry_point_takes_every_spelling_and_records_one(self, spelling, vit):
        engines = [build(spelling, tower=vit, boxes=boxes, settings=dict(templates="name")) for boxes in (False, True)]
        methods = {engine.provenance(None).method for engine in engines}
        methods |= set(Comparer(["owl"], [spelling], tower=vit).configs)
        methods |= {assemble({"type": "CLIPSurgery"}, tower=vit).provenance().method}
        assert methods == {"clip_surgery"}

    def test_refiners_are_found_in_any_spelling(self, vit):
        pipeline = assemble("sclip", tower=vit, settings=dict(refine=["Guided-Upsampling", "pamr"]))
        assert pipeline.protocol.refine == ("GuidedUpsampling", "PAMR")

    def test_trained_models_come_from_the_registry(self):
        assert trained_model("F-ViT") is MODELS.get("FViT") and trained_model("naclip") is None
        assert trained_model("catseg") is None  # the extractor's name goes first
        assert {"fvit", "regionclip", "edadet", "denseclip", "maskclip_plus", "catseg"} <= set(named(MODELS))

    def test_the_list_says_what_each_needs(self):
        rows = {(row.kind, row.name): row for row in choices()}
        assert {row.kind for row in rows.values()} == {"extractor", "refiner", "scorer", "detector", "segmentor"}
        assert (
            rows["extractor", "catseg"].needs
            == "checkpoint=FILE or weights with it, a tower with attention blocks and class token"
        )
        assert rows["extractor", "pixelclip"].needs.startswith("weights tuned for it")
        assert "ovseg.load" in rows["detector", "fvit"].needs and "train" in rows["segmentor", "denseclip"].needs
        assert all(row.time.endswith("×") or row.time == "not measured" for row in rows.values())
        assert [name for kind, name in rows if kind == "extractor"] == list_methods()


class TestOptions:
    def test_a_trained_detector_refuses_what_it_cannot_use(self):
        options = dict(
            compile=True, scorer=dict(type="NoSuchScorer"), arch="no-such-arch", quick_gelu=True, cache=False
        )
        with pytest.raises(ValueError, match="for methods without training alone") as caught:
            ovseg.load("fvit", FVIT, **options)
        assert all(name in str(caught.value) for name in options) and "\n" not in str(caught.value)
        for name, value in (options | dict(dtype="bfloat16")).items():
            with pytest.raises(ValueError, match=f"^{name}: "):
                ovseg.load_detector("fvit", FVIT, **{name: value})

    def test_options_of_weights_beside_a_tower(self, vit):
        for option in (dict(weights="tiny"), dict(arch="ViT-B-16"), dict(quick_gelu=True)):
            with pytest.raises(ValueError, match=f"^{next(iter(option))}: .*tower"):
                ovseg.load("naclip", tower=vit, **option)
            with pytest.raises(ValueError, match="tower"):
                choose_tower(tower=vit, **option)

    def test_dtype_is_the_precision(self, vit):
        for dtype in ("bfloat16", torch.bfloat16):
            assert assemble("naclip", tower=vit, dtype=dtype).protocol.precision == "bfloat16"
        assert assemble("naclip", tower=vit, dtype=torch.float32).protocol.precision == "float32"
        with pytest.raises(ValueError, match="contradict"):
            ovseg.load("naclip", tower=vit, dtype="float16", precision="bfloat16")
        with pytest.raises(ValueError, match="precision is float32"):
            ovseg.load("naclip", tower=vit, dtype="int8")

    def test_scorers_by_name(self, vit):
        for scorer in ("whole-image", dict(type="whole_image"), dict(type="WholeImageScore")):
            assert assemble("naclip", tower=vit, scorer=scorer).provenance().scorer == {"name": "whole_image"}
        for load in (ovseg.load, ovseg.load_detector):
            with pytest.raises(ValueError, match="unknown scorer 'NoSuchScorer'"):
                load("naclip", tower=vit, scorer=dict(type="NoSuchScorer"))


class TestCATSegFromOneFile:
    @pytest.mark.slow
    def test_compare_gives_it_to_the_method_and_the_tower(self, exported, picture):
        comparer = Comparer(["owl", "sky"], "catseg, naclip", exported, templates="name")
        found = comparer.compare(picture[:64, :64].copy())
        assert found.methods == ("catseg", "naclip") and not found.failed
        options = found.entries[0].result.provenance.options
        assert options["checkpoint"]["file"] == "catseg.safetensors" and len(options["checkpoint"]["hash"]) == 16

    def test_so_do_load_and_the_model_of_configs(self, exported):
        model = MODELS.build(
            dict(type="OpenVocabSegmentor", dense=dict(type="CATSeg"), vocabulary=["owl", "sky"], weights=exported)
        )
        loaded = ovseg.load("catseg", exported, ["owl", "sky"], cache=False)
        assert model.provenance == loaded.provenance
        both = dict(type="SideBySide", models={"a": dict(type="OpenVocabSegmentor", dense=dict(type="CATSeg"))})
        both["models"]["a"] |= dict(vocabulary=["owl", "sky"], weights=exported)
        assert MODELS.build(both)._models["a"].provenance == loaded.provenance


def test_prediction_reaches_no_trained_model():
    code = (
        "import sys, ovseg.apis, ovseg.predict.build as b; b.build('clip-surgery');"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('mmseg', 'mmdet') or m.startswith(('ovseg.segmentors',"
        " 'ovseg.detectors', 'ovseg.engine'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
