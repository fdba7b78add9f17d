"""What the shell completes, and that it needs no PyTorch."""

import subprocess
import sys

import open_clip
import pytest

from ovseg.cli import completion
from ovseg.registry import DENSE, MODELS, REFINERS, named

SHELL = """
import os, sys
sys.modules.update(dict.fromkeys(("torch", "mmcv", "mmseg", "mmdet")))
os.environ |= {"_OVSEG_COMPLETE": "complete_bash", "COMP_WORDS": sys.argv[1], "COMP_CWORD": sys.argv[2]}
from ovseg.cli import main
main([])
"""


def names(completions):
    return [name for name, _ in completions]


@pytest.mark.parametrize(
    "words, expected",
    [
        ("ovseg predict a.png -m clip_s", ["clip_surgery"]),
        ("ovseg predict a.png --refine pam", ["pamr"]),
        ("ovseg detect a.png -m fvi", ["fvit"]),
        ("ovseg detect a.png --weights ti", ["tiny"]),
        ("ovseg explain a.png -w ViT-L-14/open", ["ViT-L-14/openai"]),
    ],
)
def test_the_shell_gets_its_answer_without_pytorch(words, expected):
    position = str(len(words.split()) - 1)
    done = subprocess.run([sys.executable, "-c", SHELL, words, position], capture_output=True, text=True)
    assert done.stdout.split() == expected, done.stderr


def test_methods():
    own = {name for name, kind in named(DENSE).items() if kind.__module__.startswith("ovseg.")}
    trained = {name for name, kind in named(MODELS).items() if getattr(kind, "loader", None)}
    assert set(names(completion.complete_methods(""))) == own
    assert set(names(completion.complete_detectors(""))) == own | trained
    assert names(completion.complete_methods("CLIP-sur")) == ["clip_surgery"]
    assert dict(completion.complete_methods("naclip"))["naclip"] == DENSE.get("NACLIP").paper


def test_several_methods():
    assert names(completion.complete_method_list("al")) == ["all"]
    assert names(completion.complete_method_list("naclip, scl")) == ["naclip, sclip"]
    assert names(completion.complete_method_list("naclip,scl")) == ["naclip,sclip"]
    assert "naclip,all" not in names(completion.complete_method_list("naclip,"))


def test_refiners():
    own = {name for name, kind in named(REFINERS).items() if kind.__module__.startswith("ovseg.")}
    assert set(names(completion.complete_refiners(""))) == own | {"none"}


def test_weights_are_those_that_open_clip_lists():
    listed = [(arch, tag) for arch, tag in open_clip.list_pretrained() if not arch.endswith("-quickgelu")]
    assert list(completion.open_clip_tags()) == listed
    assert names(completion.complete_weights("o")) == ["openai"]
    assert names(completion.complete_weights("no such")) == []


@pytest.mark.parametrize("source", [None, "def (", "_PRETRAINED = load()", "a = b = 1"])
def test_another_open_clip(source, tmp_path, monkeypatch):
    completion.open_clip_tags.cache_clear()
    if source is not None:
        (tmp_path / "pretrained.py").write_text(source)
    origin = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(completion, "find_spec", lambda name: origin)
    assert names(completion.complete_weights("")) == ["tiny", "openai"]
    monkeypatch.setattr(completion, "find_spec", lambda name: None)
    completion.open_clip_tags.cache_clear()
    assert completion.open_clip_tags() == ()
    completion.open_clip_tags.cache_clear()
