"""The command: what it writes and prints, and that a mistake costs one paragraph."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg import cli
from ovseg.compat import notice
from ovseg.towers import fetch

QUICK = ("--templates", "name", "--refine", "none", "--no-progress")


@pytest.fixture
def ovseg(capsys, monkeypatch, tmp_path):
    """The command in this process, in an empty folder: ``ovseg("predict", …)`` → exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    monkeypatch.setattr(notice, "_said", set())

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return (caught.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def photo(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def assert_one_paragraph(outcome, *parts):
    """Exit code 2 and one line on stderr that holds all parts, beside the notice of the demo model."""
    code, _, err = outcome
    lines = [line for line in err.splitlines() if line and "is the embedded demo model:" not in line]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("ovseg: "), err
    assert all(part in lines[0] for part in parts), err


HELP = """
import sys
from ovseg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code
print("loaded:", *[name for name in ("torch", "open_clip", "mmengine", "cv2", "numpy") if name in sys.modules])
"""


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "-h"), ("--version",), ("methods", "--help")])
def test_help_loads_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown, _, loaded = done.stdout.rpartition("loaded:")
    assert shown and loaded.split() == []


def test_a_module_and_a_command():
    done = subprocess.run([sys.executable, "-m", "ovseg.cli", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split(".")[0].isdigit()


def test_predict_a_picture(ovseg, photo, tmp_path, picture):
    code, out, err = ovseg("predict", photo, "-c", "cat, dog|puppy, grass", *QUICK)
    assert code == 0 and "Traceback" not in err
    assert "1 picture(s) segmented" in out and err.count("embedded demo model") == 1 and "photo.png" in err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo.json", "photo_labels.png", "photo_overlay.png"]
    labels = np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    assert labels.shape == picture.shape[:2] and labels.max() <= 2
    record = json.loads((tmp_path / "out" / "photo.json").read_text(encoding="utf-8"))
    assert record["protocol"]["templates"] == "name" and record["method"] == "naclip"


def test_settings_reach_the_prediction(ovseg, photo, tmp_path):
    options = ("--short-side", 100, "--window", 0, "--background", 0.99, "-m", "SCLIP", "-o", "there", *QUICK)
    assert ovseg("predict", photo, "-c", "cat, dog", *options)[0] == 0
    record = json.loads((tmp_path / "there" / "photo.json").read_text(encoding="utf-8"))
    assert record["protocol"] | {"short_side": 100, "window": None, "threshold": 0.99} == record["protocol"]
    assert record["method"] == "sclip" and record["fingerprint"]
    assert ovseg("predict", photo, "-c", "cat", "--refine", "PAMR", "--templates", "a {}.", "--no-progress")[0] == 0
    record = json.loads((tmp_path / "out" / "photo.json").read_text(encoding="utf-8"))
    assert record["protocol"]["refine"] == ["PAMR"]


def test_words_from_a_file(ovseg, photo, tmp_path):
    (tmp_path / "words.txt").write_text("cat, kitten\ndog\n", encoding="utf-8")
    code, out, _ = ovseg("predict", photo, "-v", "words.txt", "--json", *QUICK)
    assert code == 0 and set(json.loads(out)["areas"]) <= {"cat", "dog"}


@pytest.fixture
def folder(picture, tmp_path):
    """Two pictures, a text and half a file that pretend to be pictures, and a picture in a folder inside."""
    (folder := tmp_path / "in").mkdir()
    for name in ("a.png", "deep[bold]er.png"):
        Image.fromarray(picture).save(folder / name)
    (folder / "b.jpg").write_text("not a picture")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:3000])
    (folder / "notes.txt").write_text("not even pretending")
    (folder / "more").mkdir()
    Image.fromarray(picture).save(folder / "more" / "a.png")
    return folder


def test_a_folder_with_broken_pictures(ovseg, folder, tmp_path):
    code, out, err = ovseg("predict", folder, "-c", "cat, dog", *QUICK)
    assert code == 1 and "2 picture(s) segmented" in out
    tail = err[err.index("2 of 4 picture(s) could not be read:") :].splitlines()[1:]
    assert len(tail) == 2 and "b.jpg" in tail[0] and "c.png" in tail[1] and "Traceback" not in err
    assert "deep[bold]er.png" in err  # shown as it is, not taken for markup
    written = {path.name for path in (tmp_path / "out").glob("*_labels.png")}
    assert written == {"a_labels.png", "deep[bold]er_labels.png"}


def test_json_lines(ovseg, folder, tmp_path):
    code, out, err = ovseg("predict", folder, "--recursive", "-c", "cat, dog", "--json", *QUICK)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and len(lines) == 3 and "could not be read" in err
    for line in lines:
        assert sum(line["areas"].values()) == pytest.approx(1) and set(line["areas"]) <= {"cat", "dog"}
        assert all((tmp_path / file).exists() for file in line["files"].values())
    assert len({line["files"]["labels"] for line in lines}) == 3  # equal names from two folders stay apart


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (("-c", "cat", "-m", "naclp"), ["unknown method 'naclp'", "naclip"]),
        (("-c", "cat", "--refine", "pamrr"), ["unknown refiner", "pamr"]),
        (("-c", "cat", "--device", "cuda:99"), ["cuda:99", "not available"]),
        (("-c", " , "), ["empty", "-c"]),
        ((), ["-c", "-v"]),
        (("-c", "cat", "-v", "ade150"), ["in one way"]),
        (("-v", "ade151"), ["ade150"]),
        (("-v", "absent.txt"), ["absent.txt", "does not exist"]),
        (("-c", "cat, dog, Cat"), ["repeats 'cat'"]),
        (("-c", "cat", "--background", "1.5"), ["between 0 and 1"]),
        (("-c", "cat", "--window", "32", "--stride", "64"), ["stride=64"]),
        (("-c", "cat", "--short-side", "0"), ["short_side=0"]),
        (("-c", "cat", "--templates", "no place"), ["placeholder"]),
        (("-c", "w " * 90), ["tokens", "reads at most"]),
        (("-c", "cat", "-w", "ViT-B-16/opena"), ["unknown weights", "ViT-B-16/openai"]),
        (("-c", "cat", "-w", "absent.pt"), ["absent.pt", "no such file"]),
    ],
)
def test_mistakes(arguments, parts, ovseg, photo):
    assert_one_paragraph(ovseg("predict", photo, *arguments), *parts)


def test_missing_pictures(ovseg, photo, tmp_path):
    """Those that are there are done; with none at all there is nothing to do."""
    code, out, err = ovseg("predict", "absent.jpg", photo, "-c", "cat", *QUICK)
    assert code == 1 and "1 picture(s) segmented" in out and "there is no file absent.jpg" in err
    assert_one_paragraph(ovseg("predict", "absent.jpg", "-c", "cat"), "there is no file absent.jpg")
    (tmp_path / "empty").mkdir()
    assert_one_paragraph(ovseg("predict", "empty", "-c", "cat"), "no image in the folder empty")


def test_resume(ovseg, folder, tmp_path):
    """Only what has no JSON yet is done."""
    ovseg("predict", folder / "a.png", "-c", "cat, dog", *QUICK)
    before = (tmp_path / "out" / "a.json").stat().st_mtime_ns
    code, out, _ = ovseg("predict", folder, "-c", "cat, dog", "--resume", "--json", *QUICK)
    assert code == 1 and [json.loads(line)["image"][-19:] for line in out.splitlines()] == ["in/deep[bold]er.png"]
    assert (tmp_path / "out" / "a.json").stat().st_mtime_ns == before


def test_resume_does_over_what_other_words_made(ovseg, photo, tmp_path):
    ovseg("predict", photo, "-c", "cat, dog", *QUICK)
    before = (tmp_path / "out" / "photo.json").stat().st_mtime_ns
    ovseg("predict", photo, "-c", "cat, dog", "--resume", *QUICK)
    assert (tmp_path / "out" / "photo.json").stat().st_mtime_ns == before
    ovseg("predict", photo, "-c", "cat, owl", "--resume", *QUICK)
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["names"] == ["cat", "owl"]


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")])
def test_processes_share_the_pictures(ovseg, folder, tmp_path, monkeypatch, names):
    """Every picture once, every broken one named once, and the files of one process alone."""
    words = ("predict", folder, "-c", "cat, dog", "--recursive", "--json", *QUICK)
    _, out, said = ovseg(*words, "-o", tmp_path / "one")
    alone = sorted(json.loads(line)["image"] for line in out.splitlines())
    broken = said.count("b.jpg") + said.count("c.png")
    together, heard = [], 0
    for rank in range(2):
        monkeypatch.setenv(names[0], str(rank))
        monkeypatch.setenv(names[1], "2")
        _, out, said = ovseg(*words, "-o", tmp_path / "two")
        together += [json.loads(line)["image"] for line in out.splitlines()]
        heard += said.count("b.jpg") + said.count("c.png")
    assert sorted(together) == alone and heard == broken > 0
    files = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]


def test_the_output_folder_is_a_file(ovseg, photo):
    assert_one_paragraph(ovseg("predict", photo, "-c", "cat, dog", "-o", photo, *QUICK), "photo.png")


def test_missing_weights(ovseg, photo, monkeypatch):
    """Offline: the file, the cache it was looked for in, and the command that fetches it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    monkeypatch.setattr(fetch, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setenv("HOME", str(photo.parent))
    outcome = ovseg("predict", photo, "-c", "cat", "-w", "ViT-B-32/openai")
    assert_one_paragraph(
        outcome, "ViT-B-32/openai", "open_clip_pytorch_model.bin", str(HF_HUB_CACHE), "hf download timm/vit_base", "-w"
    )


def test_wrong_weights(ovseg, photo, tmp_path):
    torch.save({"fc.weight": torch.zeros(300, 300)}, tmp_path / "head.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "head.pt").read_bytes()[:2000])
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>log in</html>")
    for name, part in {"head.pt": "not those of a CLIP", "half.pt": "incomplete", "page.pt": "web page"}.items():
        assert_one_paragraph(ovseg("predict", photo, "-c", "cat", "-w", name), part)


def test_unknown_words_are_a_warning(ovseg, photo):
    code, _, err = ovseg("predict", photo, "-c", "cat, xylograph", *QUICK)
    said = [line for line in err.splitlines() if line.startswith("warning:")]
    assert code == 0 and len(said) == 1 and "xylograph" in said[0]


def test_methods(ovseg):
    code, out, _ = ovseg("methods")
    assert code == 0 and all(name in out for name in ("naclip", "sclip", "maskclip", "ECCV"))


def test_words(ovseg):
    code, out, _ = ovseg("words")
    assert code == 0 and {"cat", "dog"} <= set(out.splitlines())


def test_doctor(ovseg):
    code, out, _ = ovseg("doctor")
    assert code == 0 and all(part in out for part in ("torch", "processors", "text embeddings", "OVSEG_OFFLINE"))


@pytest.mark.parametrize("arguments", [("predikt",), ("predict",), ("predict", "x.png", "--stride", "wide")])
def test_usage_errors_are_those_of_the_shell(ovseg, arguments):
    code, _, err = ovseg(*arguments)
    assert code == 2 and "Usage" in err and "Traceback" not in err
