"""One provenance: what a result was made with, and whether another would be the same."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import ovseg as package
from ovseg.pictures.identity import PictureFile
from ovseg.pictures.images import identify, load_image
from ovseg.results.detections import Detections
from ovseg.results.provenance import PARTS, Provenance, Weights, plain
from ovseg.results.result import Result

from .conftest import ROOT
from .test_cli import QUICK, folder, ovseg, photo  # noqa: F401 (fixtures)

KEYS = {"method", "options", "scorer", "weights", "vocabulary_hash", "protocol", "fingerprint", "picture"}
FULL = Provenance(
    method="clip_surgery",
    options={"last_n": 3, "shares": [0.5, 1]},
    scorer={"name": "cosine"},
    weights=Weights("tiny", "a1", "b2", Weights("run.safetensors", "c3", "c3")),
    vocabulary_hash="d4",
    protocol={"window": 224},
    fingerprint="e5",
    picture=PictureFile("cat.png", 12, "f6"),
)
OTHERS = dict(
    method="naclip",
    options={"last_n": 4, "shares": [0.5, 1]},
    scorer={"name": "denoised"},
    weights=Weights("tiny", "a1", "b2"),
    vocabulary_hash="d5",
    fingerprint="",
    picture=PictureFile("cat.png", 12, "f7"),
)


class TestValue:
    def test_round_trip_by_json(self):
        record = json.loads(json.dumps(FULL.to_dict()))
        assert set(record) == KEYS and Provenance.from_dict(record | {"more": 1}) == FULL
        assert Provenance.from_dict({}) == Provenance() and str(FULL.weights) == "tiny (a1) + run.safetensors (c3)"

    @pytest.mark.parametrize("part", PARTS)
    def test_each_part_tells_two_apart(self, part):
        assert FULL.differences(FULL) == [] and FULL.differences(replace(FULL, **{part: OTHERS[part]})) == [part]

    def test_what_does_not_count(self):
        elsewhere = Weights("/other/place.pt", "a1", "b2", Weights("copy.safetensors", "c3", "c3"))
        same = replace(FULL, method="CLIP-Surgery", weights=elsewhere, picture=PictureFile("dog.png", 12, "f6"))
        same = replace(same, options={"last_n": 3, "shares": (0.5, 1)}, protocol={"window": 224, "memory": 1})
        assert FULL.differences(same) == []

    def test_earlier_files(self):
        old = {"method": "clipsurgery", "weights": "tiny (b2) + run.safetensors (c3)", "vocabulary_hash": "d4"}
        old |= {"protocol": {"window": 224, "fingerprint": "e5"}, "vocabulary": {"words": []}}
        read = Provenance.from_dict(old)
        assert read.protocol == {"window": 224} and read.weights.key == FULL.weights.key
        assert FULL.differences(read) == ["options", "scorer", "picture"]
        assert Provenance.from_dict({"vocabulary": "d4"}).vocabulary_hash == "d4"
        for text in ("a (b) (c1)", "plain", "x (1) + a run that goes on", "with (brackets"):
            assert str(Weights.parse(text)) == text

    def test_files_in_options_are_their_bytes(self, tmp_path):
        (tmp_path / "a.pt").write_bytes(b"1")
        (tmp_path / "b.pt").write_bytes(b"1")
        (tmp_path / "c.pt").write_bytes(b"2")
        a, b, c = (replace(FULL, options=plain({"checkpoint": tmp_path / f"{name}.pt"})) for name in "abc")
        assert (
            a.differences(b) == [] and a.differences(c) == ["options"] and str(tmp_path) not in json.dumps(a.to_dict())
        )
        assert plain(np.zeros) == "builtin_function_or_method" and plain("x" * 9999) == "x" * 9999


class TestPictures:
    def test_the_bytes_of_a_file(self, photo, picture):  # noqa: F811
        loaded = load_image(photo)
        assert loaded.file == identify(photo) == PictureFile.of_bytes("photo.png", photo.read_bytes())
        assert load_image(picture).file is identify(picture) is None

    def test_every_result_names_it(self, vit, photo, tmp_path):  # noqa: F811
        quick = dict(tower=vit, classes="cat, dog", templates="name", cache=False)
        for model, kind in (
            (package.load("naclip", **quick), Result),
            (package.load_detector("naclip", **quick), Detections),
        ):
            result = model(photo)
            path = result.save(tmp_path / "out")["json"]
            record = json.loads(path.read_text(encoding="utf-8"))
            assert set(record) >= KEYS and record["picture"]["name"] == "photo.png"
            again = kind.load(path).provenance
            assert not again.differences(result.provenance) and again.picture == identify(photo)

    def test_boxes_that_were_given_are_another_result(self, vit, picture):
        model = package.load_detector("naclip", tower=vit, classes="cat, dog", templates="name", cache=False)
        found, given = model.set_image(picture).predict().provenance, model.predict(boxes=[[0, 0, 40, 40]]).provenance
        assert found == model.provenance.of(None) or found.fingerprint == model.provenance.fingerprint
        assert given.differences(found) == ["fingerprint"]


class TestResume:
    def run(self, ovseg, *more):  # noqa: F811
        code, out, err = ovseg("predict", "photo.png", "-c", "cat, dog", "--resume", "--json", *QUICK, *more)
        assert code == 0, err
        return len(out.splitlines()), "1 already there" in err

    def test_bytes_count_and_places_do_not(self, ovseg, photo, tmp_path, picture):  # noqa: F811
        assert self.run(ovseg) == (1, False) and self.run(ovseg) == (0, True)
        (tmp_path / "deep").mkdir()
        photo.rename(tmp_path / "deep/photo.png")
        code, out, err = ovseg("predict", "deep/photo.png", "-c", "cat, dog", "--resume", "--json", *QUICK)
        assert code == 0 and not out and "1 already there" in err
        Image.fromarray(picture[::-1].copy()).save(photo)  # another picture under the same name
        assert self.run(ovseg) == (1, False) and self.run(ovseg) == (0, True)

    def test_spelling_and_entry_point_do_not_count(self, ovseg, photo):  # noqa: F811
        assert self.run(ovseg, "-m", "clip_surgery") == (1, False)
        assert self.run(ovseg, "-m", "CLIPSurgery") == self.run(ovseg, "-m", "clip-surgery") == (0, True)
        assert self.run(ovseg, "-m", "naclip") == (1, False)

    @pytest.mark.parametrize("change", ["before pictures were named", "before underscores", "damaged"])
    def test_earlier_results(self, ovseg, photo, tmp_path, change):  # noqa: F811
        self.run(ovseg, "-m", "clip_surgery")
        path = tmp_path / "out/photo.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record.pop("checksum")
        if change == "before underscores":
            record["method"] = "clipsurgery"
        elif change == "damaged":
            record["picture"] = {"name": 3}
        else:
            record["protocol"]["fingerprint"] = record.pop("fingerprint")
            record["weights"] = "tiny (123)"
            for key in ("options", "scorer", "picture"):
                record.pop(key)
        path.write_text(json.dumps(record), encoding="utf-8")
        if change != "damaged":
            assert Result.load(path).provenance.method in ("clip_surgery", "clipsurgery")
        assert self.run(ovseg, "-m", "clip_surgery") == ((0, True) if change == "before underscores" else (1, False))


def test_the_benchmark_runner_compares_before_it_measures():
    import ovseg.cli.test as runner
    from ovseg.engine.planned import planned

    config = str(ROOT / "configs/sclip/sclip_tiny.py")
    common = [config, "--benchmark", "scenes_seen_v20"]
    cfg = runner.prepare(runner.parse(common), config, "scenes_seen_v20")
    row = json.loads(json.dumps({"limit": 2} | planned(cfg).to_dict()))
    assert runner.is_measured(row, cfg, 2) and not runner.is_measured(row, cfg, None)
    other = runner.parse([*common, "--cfg-options", "model.dense.last_n=2"])
    assert not runner.is_measured(row, runner.prepare(other, config, "scenes_seen_v20"), 2)
    assert not runner.is_measured(row | {"weights": "w (1)"}, cfg, 2) and not runner.is_measured({"limit": 2}, cfg, 2)


def test_rows_of_the_own_test_set_are_kept_apart(capsys):
    import ovseg.cli.test as runner

    assert runner.asked({"benchmark": "voc20", "own_test": True}) is None
    assert runner.asked({"benchmark": "voc20", "own_test": False}) == runner.asked({"benchmark": "voc20"}) == "voc20"
    for limit in ("0", "-1", "x"):
        with pytest.raises(SystemExit):
            runner.parse(["config.py", "--limit", limit])
        assert "give 1 or more" in capsys.readouterr().err
