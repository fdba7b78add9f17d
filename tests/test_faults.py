"""Full disks, two writers, killed runs, files of others, odd names: what is said, and what stays."""

import errno
import io
import json
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from ovseg import files
from ovseg.compat.untrusted import parse_yaml
from ovseg.locks import LockedError, locked
from ovseg.marks import MARK, NotOwnError, is_marked, is_named, is_own
from ovseg.pictures.identity import PictureFile
from ovseg.pictures.images import iter_sources
from ovseg.pictures.pixels import ImageError
from ovseg.predict.user_regions import user_regions
from ovseg.printable import printable, say, say_json
from ovseg.results import rle
from ovseg.results.detections import Detections
from ovseg.results.result import Result
from ovseg.text.templates import get_templates
from ovseg.text.vocabulary import Vocabulary

from .test_cli import QUICK, assert_one_paragraph, folder, ovseg, photo  # noqa: F401 (fixtures)

WORDS = ("-c", "cat, dog")
NO_PROCESS = 2**22 + 7  # beyond the largest process id of Linux


def result_of(labels=((0, 1), (1, 1)), **more) -> Result:
    labels = np.asarray(labels, np.uint8)
    return Result(labels, np.full(labels.shape, 0.75, np.float32), Vocabulary.parse("cat, dog"), **more)


def detections_of() -> Detections:
    masks = [np.array([[1, 1, 0], [0, 0, 0]]), np.array([[0, 0, 0], [0, 1, 1]])]
    boxes = [[0, 0, 2, 1], [1, 1, 3, 2]]
    vocabulary, scores = Vocabulary.parse("cat, dog"), np.array([0.9, 0.5])
    return Detections(np.array(boxes, float), scores, np.array([1, 0]), vocabulary, (2, 3), masks)


@contextmanager
def file_size_limit(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestLock:
    def test_one_at_a_time(self, tmp_path):
        path = tmp_path / "lock"
        with locked(path, "the labels are"):
            assert json.loads(path.read_text())["pid"] == os.getpid()
            with pytest.raises(LockedError, match=f"process {os.getpid()} "), locked(path, "the labels are"):
                pass
        assert not path.exists()
        with locked(path, "the labels are"):
            pass

    def test_a_killed_owner_is_followed(self, tmp_path):
        path = tmp_path / "lock"
        code = f"import os\nfrom ovseg.locks import locked\nwith locked({str(path)!r}, ''):\n    os._exit(9)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 9 and path.exists()
        with locked(path, "the labels are"):
            assert json.loads(path.read_text())["pid"] == os.getpid()

    def test_without_locks_of_the_disk_the_process_decides(self, tmp_path, monkeypatch):
        from ovseg import locks

        def flock(*_):
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(locks.fcntl, "flock", flock)
        path, host = tmp_path / "lock", locks.socket.gethostname()
        path.write_text(json.dumps({"pid": NO_PROCESS, "host": host}))
        with locked(path, "the labels are"), pytest.raises(LockedError), locked(path, "the labels are"):
            pass
        path.write_text(json.dumps({"pid": NO_PROCESS, "host": "another"}))
        with pytest.raises(LockedError, match="another"), locked(path, "the labels are"):
            pass

    def test_no_link_is_followed(self, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        (tmp_path / "lock").symlink_to("mine.txt")
        with pytest.raises(OSError), locked(tmp_path / "lock", "the labels are"):
            pass
        assert (tmp_path / "mine.txt").read_text() == "mine"


class TestWriting:
    def test_drafts_of_killed_processes_are_removed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_cleaned", set())
        machine = files._machine()
        dead = tmp_path / f".x_overlay.ovseg-{machine}-{NO_PROCESS}-0123abcd.png"
        alive = tmp_path / f".y.ovseg-{machine}-{os.getpid()}-0123abcd.png"
        elsewhere = tmp_path / f".z.ovseg-{int(machine, 16) ^ 1:08x}-{NO_PROCESS}-0123abcd.png"
        for path in (dead, alive, elsewhere, tmp_path / ".x_overlay.png"):
            path.write_text("half")
        with files.atomic_write(tmp_path / "x.txt") as draft:
            assert files.DRAFT.fullmatch(draft.name)
            draft.write_text("whole")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [alive.name, elsewhere.name, ".x_overlay.png", "x.txt"]
        )

    def test_the_longest_names(self, tmp_path):
        name = "ü" * 125 + ".json"
        files.write_json(tmp_path / name, {})
        assert (tmp_path / name).read_text() == "{}\n"
        with pytest.raises(OSError) as caught:
            files.write_json(tmp_path / ("x" * 300), {})
        assert caught.value.errno == errno.ENAMETOOLONG

    def test_a_full_disk_leaves_nothing_half_written(self, tmp_path):
        with file_size_limit(100), pytest.raises(OSError):
            result_of().save(tmp_path, "a")
        assert not list(tmp_path.iterdir())

    def test_a_batch_goes_on_until_nothing_can_be_written(self, ovseg, folder, tmp_path, monkeypatch):  # noqa: F811
        save, calls = Result.save, []

        def full(self, out, stem, **options):
            calls.append(stem)
            if len(calls) == 1:
                raise OSError(errno.EFBIG, "File too large", stem)
            return save(self, out, stem, **options)

        monkeypatch.setattr(Result, "save", full)
        code, out, err = ovseg("predict", folder, *WORDS, *QUICK)
        assert code == 1 and "have no results" in err and "file too large" in err and "Traceback" not in err
        assert len(calls) > 1 and f"{len(calls) - 1} picture(s) segmented" in out
        from ovseg.cli import output

        calls.clear()
        monkeypatch.setattr(output, "check_writable", lambda folder, first=[]: first.append(1) or _refuse(len(first)))
        code, _, err = ovseg("predict", folder, *WORDS, *QUICK)
        assert code == 1 and len(calls) == 1 and "the run ends here" in err

    def test_folders_that_cannot_be(self, ovseg, photo, tmp_path):  # noqa: F811
        (tmp_path / "file").write_text("")
        for verb in ("predict", "detect", "compare", "explain"):
            assert_one_paragraph(ovseg(verb, photo, *WORDS, "-o", tmp_path / "file" / "deep"), "cannot save into")
        assert_one_paragraph(ovseg("locate", photo, "-p", "cat", "-o", "/dev/full"), "cannot save into")
        with file_size_limit(10):
            assert_one_paragraph(ovseg("predict", photo, *WORDS, "-o", "new"), "file too large")
        assert not (tmp_path / "new").exists()


def _refuse(count: int):
    if count > 1:
        raise ValueError("full")


class TestOwnership:
    def test_files_of_others_stay(self, tmp_path):
        for name in ("a.json", "a_labels.png"):
            (tmp_path / name).write_text("{}")
            with pytest.raises(NotOwnError, match=name):
                result_of().save(tmp_path, "a")
            assert (tmp_path / name).read_text() == "{}" and len(list(tmp_path.iterdir())) == 1
            (tmp_path / name).unlink()
        (tmp_path / "a.json").write_text("{}")
        result_of().save(tmp_path, "a", overwrite=True)
        result_of().save(tmp_path, "a", formats=list(result_of().save(tmp_path, "a")))
        assert Result.load(tmp_path / "a.json").names == ("cat", "dog")

    def test_marks_and_names(self, tmp_path):
        paths = result_of().save(tmp_path, "a", ("overlay", "labels", "scores", "json"))
        assert all(map(is_own, paths.values())) and Image.open(paths["labels"]).info["Software"] == MARK
        assert all(is_marked(paths[kind]) for kind in ("overlay", "labels", "scores"))
        Image.open(paths["labels"]).copy().save(paths["labels"])  # as an early version wrote it
        assert is_named(paths["labels"]) and not is_named(tmp_path / "b_labels.png")
        paths["json"].unlink()
        assert is_own(paths["overlay"]) and not is_own(paths["labels"])
        (tmp_path / "link.png").symlink_to(paths["overlay"])
        assert not is_own(tmp_path / "link.png")
        both = detections_of().save(tmp_path, "c")
        assert is_own(both["json"])

    def test_results_are_no_input(self, ovseg, photo, tmp_path):  # noqa: F811
        assert ovseg("predict", tmp_path, *WORDS, "-o", tmp_path, *QUICK)[0] == 0
        before = sorted(path.name for path in tmp_path.iterdir())
        code, out, err = ovseg("predict", tmp_path, *WORDS, "-o", tmp_path, *QUICK)
        assert code == 0 and "1 picture(s) segmented" in out and "2 picture(s)" in err and "are left out" in err
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        (tmp_path / "out.json").write_text("[]")
        (tmp_path / "photo.json").unlink()  # as a killed run leaves it
        with pytest.warns(UserWarning, match="2 picture"):
            assert [path.name for path in iter_sources(tmp_path)] == ["photo.png"]
        (tmp_path / "photo.png").unlink()
        with pytest.raises(ImageError, match="results of ovseg"):
            iter_sources(tmp_path)
        assert iter_sources(tmp_path / "photo_overlay.png").single

    def test_no_picture_is_written_over(self, ovseg, photo, tmp_path):  # noqa: F811
        photo.rename(tmp_path / "a_labels.png")
        Image.open(tmp_path / "a_labels.png").save(tmp_path / "a.png")
        before = (tmp_path / "a_labels.png").read_bytes()
        outcome = ovseg("predict", tmp_path, *WORDS, "-o", tmp_path, *QUICK, "--overwrite")
        assert_one_paragraph(outcome, "a_labels.png", "give another -o")
        assert_one_paragraph(ovseg("predict", "a.png", *WORDS, "-o", tmp_path, *QUICK), "--overwrite")
        assert (tmp_path / "a_labels.png").read_bytes() == before

    def test_home_and_nowhere(self, ovseg, photo, tmp_path, monkeypatch):  # noqa: F811
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert ovseg("predict", photo, *WORDS, "--out=~/x", *QUICK)[0] == 0
        assert (tmp_path / "home/x/photo.json").is_file() and not (tmp_path / "~").exists()
        assert_one_paragraph(ovseg("predict", "", *WORDS, *QUICK), "is empty")

    def test_linked_folders_are_named(self, photo, tmp_path):  # noqa: F811
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/link").symlink_to(tmp_path)
        with pytest.warns(UserWarning, match="deep/link"):
            assert len(iter_sources(tmp_path, recursive=True)) == 1


def test_resume_looks_at_every_file(ovseg, photo, tmp_path):  # noqa: F811
    run = ("predict", photo, *WORDS, "--resume", *QUICK)
    assert ovseg(*run)[0] == 0 and "1 already there" in ovseg(*run)[2]
    (tmp_path / "out/photo_labels.png").unlink()
    code, out, err = ovseg(*run)
    assert code == 0 and "1 picture(s) segmented" in out and "already there" not in err


class TestResultFiles:
    @pytest.mark.parametrize(
        "content", ["[]", "5", "null", '"x"', "{}", "[" * 500 + "]" * 500, '{"format": []}', "\xff"]
    )
    @pytest.mark.parametrize("kind", [Result, Detections])
    def test_foreign_files(self, tmp_path, content, kind):
        (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match="ovseg saved"):
            kind.load(tmp_path / "a.json")

    def mutations(self, value, path=()):
        """Every value of a record replaced by others of its kind and of other kinds."""
        if isinstance(value, dict):
            for key in value:
                yield from self.mutations(value[key], (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.mutations(item, (*path, index))
        yield from ((path, other) for other in (None, True, -1, 3, 1e30, "../x", [], {}, [[]]) if other != value)

    @pytest.mark.parametrize("sealed", [True, False])
    @pytest.mark.parametrize("make", [result_of, detections_of])
    def test_changed_files(self, tmp_path, make, sealed):
        original = make()
        path = original.save(tmp_path, "a")["json"]
        record = json.loads(path.read_text(encoding="utf-8"))
        if not sealed:
            record.pop("checksum")
        for where, value in list(self.mutations(record)):
            changed = json.loads(json.dumps(record))
            inner = changed
            for key in where[:-1]:
                inner = inner[key]
            if not where:
                continue
            inner[where[-1]] = value
            path.write_text(json.dumps(changed), encoding="utf-8")
            try:
                again = type(original).load(path)
            except ValueError:
                continue
            assert not sealed or where[0] in ("checksum", "ovseg_version"), where
            assert np.array_equal(again.labels, original.labels) or make is detections_of, where

    def test_added_keys_are_welcome(self, tmp_path):
        path = result_of().save(tmp_path, "a")["json"]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"reviewed": True}))
        assert Result.load(path).labels.tolist() == [[0, 1], [1, 1]]

    def test_scores_lie_beside(self, tmp_path):
        path = result_of().save(tmp_path / "in", "a", ("scores", "json"))["json"]
        (tmp_path / "in/a_scores.npz").rename(tmp_path / "a_scores.npz")
        with pytest.warns(UserWarning, match="scores of this result are missing"):
            assert Result.load(path).scores is None
        record = json.loads(path.read_text())
        record.pop("checksum")
        for name in ("../a_scores.npz", str(tmp_path / "a_scores.npz"), "..", 3, ""):
            path.write_text(json.dumps(record | {"files": {"scores": name}}))
            with pytest.raises(ValueError, match="files.scores"):
                Result.load(path)
        path.write_text(json.dumps(record))
        result_of([[1, 1], [0, 0]]).save(tmp_path / "in", "a", "scores")
        with pytest.raises(ValueError, match="other labels"):
            Result.load(path)

    def test_another_picture_is_not_shown(self, tmp_path):
        from dataclasses import replace

        from ovseg.results.provenance import Provenance

        picture = tmp_path / "p.png"
        Image.new("RGB", (2, 2), "red").save(picture)
        path = result_of(path=picture, provenance=Provenance().of(PictureFile.of_file(picture))).save(tmp_path)["json"]
        assert Result.load(path).image is not None
        Image.new("RGB", (2, 2), "blue").save(picture)
        assert Result.load(path).image is None and replace(result_of()).image is None

    @pytest.mark.parametrize(
        "counts", [None, "", 5, [1.5, 2.5], ["a"], [-1, 7], [2**62, 2**62, 2**62, 2**62, 6], [[6]], {}]
    )
    def test_run_lengths(self, counts):
        for read in (rle.decode, rle.area):
            with pytest.raises(ValueError):
                read({"size": [2, 3], "counts": counts})
        with pytest.raises(ValueError):
            rle.area({"size": [2.0, 3], "counts": [6]})
        assert rle.area({"size": [2, 3], "counts": [1, 2, 3]}) == 2


class TestStreams:
    def test_names_are_only_shown(self, capsys, monkeypatch):
        name = "a\x1b[2J\x9b1m\n\u202eb\x07é"
        assert printable(name) == "a\\x1b[2J\\x9b1m\\n\\u202eb\\x07é"
        say(name)
        say(name, error=True)
        out, err = capsys.readouterr()
        assert out == err == printable(name) + "\n"
        say_json(files.json_text({name: name}, indent=None))
        line = capsys.readouterr().out
        assert json.loads(line) == {name: name} and "\x9b" not in line and "é" in line and line.count("\n") == 1

    def test_streams_of_few_letters(self, monkeypatch):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        name = "é😀\udcff"
        say_json(files.json_text({"image": name, "score": float("nan")}, indent=None))
        say("é")
        lines = stream.buffer.getvalue().decode("ascii").splitlines()
        assert json.loads(lines[0]) == {"image": name, "score": None} and lines[1] == "\\xe9"

    def test_every_verb_shows_odd_names(self, ovseg, photo, tmp_path):  # noqa: F811
        odd = tmp_path / "a\x1b]0;title\x07\nb.png"
        photo.rename(odd)
        (tmp_path / "bad\x1b[2J.png").write_text("no picture")
        words = ("-c", "cat, dog", "--templates", "name")
        for arguments in (("predict", *words, "--refine", "none"), ("detect", *words), ("locate", "-p", "cat\x1b[2J")):
            code, out, err = ovseg(arguments[0], tmp_path / "*b.png", tmp_path / "bad*", *arguments[1:], "-o", "out")
            assert code == 1 and "\x1b" not in out + err and "\x07" not in out + err and "\\x1b" in err

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
    def test_a_full_stream_costs_a_sentence(self):
        code = "from ovseg.cli import main; main(['--version'])"
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and done.stderr.startswith("ovseg: ") and len(done.stderr.splitlines()) == 1


class TestEnvironment:
    @pytest.mark.parametrize("rank, world", [("x", "2"), ("2", "2"), ("-1", "2"), ("", "1")])
    def test_no_numbers(self, ovseg, photo, monkeypatch, rank, world):  # noqa: F811
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        assert_one_paragraph(ovseg("predict", photo, *WORDS, *QUICK), "RANK=")

    def test_left_over(self, capsys, monkeypatch):
        from ovseg.cli.common import own_share

        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        assert own_share() == (1, 2) and "left over from another job" in capsys.readouterr().err
        monkeypatch.setenv("MASTER_ADDR", "localhost")
        assert own_share() == (1, 2) and not capsys.readouterr().err


def test_addresses_are_recorded_without_passwords():
    file = PictureFile.of_bytes("a.png", b"x", "https://user:secret@host/a.png?size=3@2")
    assert file.url == "https://host/a.png?size=3@2" and PictureFile.from_dict(file.to_dict()) == file
    assert file.is_same(PictureFile.of_bytes("b.png", b"x")) and "url" not in PictureFile.of_bytes("b", b"").to_dict()


class TestYaml:
    def test_values(self):
        assert parse_yaml("", "it") is None
        text = "a: &one [1, x]\nb: {<<: {c: *one}, d: 2.5}\n"
        assert parse_yaml(text, "it") == {"a": [1, "x"], "b": {"c": [1, "x"], "d": 2.5}}

    @pytest.mark.parametrize(
        "text",
        [
            "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            "m0: &m0 {x: 1}\n"
            + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}\n" for i in range(1, 9)),
            "&a [*a]",
            "[" * 100 + "]" * 100,
            "[" * 100_000,
            "a: [",
            "!!python/object/apply:os.system [ls]",
            "\x00",
        ],
    )
    def test_bombs(self, text):
        with pytest.raises(ValueError, match="^it "):
            parse_yaml(text, "it")


class TestRasters:
    """Of the same kind as in ``test_raster``, whose helpers need rasterio."""

    @pytest.fixture
    def run(self, vit, tmp_path):
        pytest.importorskip("rasterio", reason="an extra: pip install rasterio")
        from .test_raster import PLENTY, predictor_of, scene, write

        path = write(tmp_path / "x.tif", scene(150, 130))
        return lambda: predictor_of(vit).raster(path, PLENTY)

    def test_two_writers(self, run, tmp_path):
        first, out, errors = run(), tmp_path / "out", []

        def second(_):
            if not errors:
                with pytest.raises(LockedError) as caught:
                    run().save(out)
                errors.append(str(caught.value))

        thread = threading.Thread(target=second, args=(0,))
        first.save(out, report=lambda count: (thread.start(), thread.join()) if not errors else None)
        assert len(errors) == 1 and str(os.getpid()) in errors[0]
        labels = (out / "x_labels.tif").read_bytes()
        assert sorted(path.name for path in out.iterdir()) == ["x.json", "x_labels.tif", "x_overlay.png"]
        run().save(out)
        assert (out / "x_labels.tif").read_bytes() == labels

    def test_links_are_replaced_and_not_followed(self, run, tmp_path):
        out, mine = tmp_path / "out", tmp_path / "mine.txt"
        out.mkdir()
        mine.write_text("mine" * 10_000)
        for resume in (False, True):
            (out / "x_labels.part").symlink_to(mine)
            run().save(out, resume=resume)
            os.link(mine, out / "x_labels.part")
            (out / "x_labels.part.json").write_text(json.dumps({"provenance": run().provenance.to_dict(), "done": 64}))
            run().save(out, resume=resume)
            assert mine.read_text() == "mine" * 10_000
        (out / "x_labels.part").write_text("mine")
        with pytest.raises(NotOwnError, match="x_labels.part"):
            run().save(out)

    def test_a_full_disk(self, run, tmp_path):
        out = tmp_path / "out"
        with file_size_limit(15_000), pytest.raises(OSError):
            run().save(out)
        assert not (out / "x.json").exists() and not (out / "x_labels.tif").exists()
        run().save(out, resume=True)
        assert (out / "x.json").exists() and not list(out.glob(".*"))


@pytest.mark.parametrize(
    "name, values",
    [
        (name, value)
        for name in ("boxes", "masks", "objectness")
        for value in (5, "x", [None], [["a"] * 4], {}, [[1, 2]])
    ]
    + [("boxes", [[1, 2, 3, 4], [1, 2]]), ("objectness", [1.5]), ("objectness", [float("nan")]), ("masks", [[1]])],
)
def test_regions_of_wrong_kinds(name, values):
    with pytest.raises(ValueError, match=f"^{name} .*expected") as caught:
        user_regions(**{name: values})
    assert "\n" not in str(caught.value)


def test_regions_belong_together():
    assert user_regions(boxes=[], masks=None)["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="one by one"):
        user_regions(boxes=[[0, 0, 1, 1]], objectness=[0.5, 0.5])


@pytest.mark.parametrize("templates", [5, None, [5], {}, b"x", ["{x}"], ["{0.__class__}"]])
def test_templates_of_wrong_kinds(templates):
    with pytest.raises(ValueError, match="^prompt templates"):
        get_templates(templates)


def test_resume_tells_boxes_from_masks(ovseg, photo):  # noqa: F811
    run = ("detect", photo, *WORDS, "--templates", "name", "--score", "0", "--resume", "--no-progress")
    for more in ((), ("--no-masks",), ()):
        assert "1 already there" not in ovseg(*run, *more)[2] and "1 already there" in ovseg(*run, *more)[2]
