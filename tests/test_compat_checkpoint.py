"""Weights files, good and bad: what is read, what is refused and in which words."""

import argparse
import collections
import os
import pathlib
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from safetensors import safe_open
from safetensors.torch import save_file

from ovseg.compat.checkpoint import (
    Record,
    atomic_write,
    file_sha256,
    read_checkpoint,
    read_checkpoint_with_meta,
    save_safetensors,
    state_hash,
)

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "scale": torch.tensor(2, dtype=torch.float16)}


def equal(state, expected=STATE):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name
    return True


# ----------------------------------------------------------------------------------------------------------- good files

PREFIXED = {f"module.{name}": tensor for name, tensor in STATE.items()}
GOOD = {
    "bare": (STATE, {}),
    "parameters": ({name: torch.nn.Parameter(tensor) for name, tensor in STATE.items()}, {}),
    "state_dict and epoch": ({"state_dict": STATE, "epoch": 3}, {"epoch": 3}),
    "model": ({"model": STATE, "optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.1}}),
    "module": ({"module": STATE}, {}),
    "model_state_dict": ({"model_state_dict": STATE, "name": "ViT"}, {"name": "ViT"}),
    "nested": ({"model": {"state_dict": STATE, "epoch": 1}, "seed": 2}, {"epoch": 1, "seed": 2}),
    "DataParallel": (PREFIXED, {}),
    "wrapped DataParallel": ({"state_dict": collections.OrderedDict(PREFIXED)}, {}),
    "numbers beside tensors": ({**STATE, "version": 2}, {"version": 2}),
    "numpy numbers": ({"state_dict": STATE, "best": np.float64(0.5), "step": np.int64(7)}, {"best": 0.5, "step": 7}),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", GOOD)
def test_torch_files(tmp_path, case, zipped):
    content, expected = GOOD[case]
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    state, meta = read_checkpoint_with_meta(path)
    assert equal(state) and meta == expected
    assert not any(tensor.requires_grad for tensor in state.values())


def test_a_prefix_that_not_all_names_share_stays(tmp_path):
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(mixed, tmp_path / "mixed.pt")
    assert equal(read_checkpoint(tmp_path / "mixed.pt"), mixed)


def test_the_suffix_does_not_matter(tmp_path):
    torch.save(STATE, tmp_path / "a.bin")
    save_file(STATE, tmp_path / "b.pth")
    assert equal(read_checkpoint(tmp_path / "a.bin")) and equal(read_checkpoint(str(tmp_path / "b.pth")))


def test_mmengine_checkpoint(tmp_path):
    hub = MessageHub.get_instance("test_compat_checkpoint")
    hub.update_scalar("train/loss", np.float32(0.5))
    hub.update_info("iter", 4)
    content = {"meta": {"epoch": 1, "dataset_meta": {"classes": ("a", "b")}}, "state_dict": STATE}
    torch.save(content | {"message_hub": hub.state_dict()}, tmp_path / "epoch_1.pth")
    state, meta = read_checkpoint_with_meta(tmp_path / "epoch_1.pth")
    assert equal(state) and meta["meta"] == content["meta"]
    assert isinstance(meta["message_hub"]["log_scalars"]["train/loss"], Record)


def test_foreign_objects_become_records(tmp_path):
    arguments = argparse.Namespace(lr=0.1, out=pathlib.Path("runs/a"))
    torch.save({"state_dict": STATE, "args": arguments, "array": np.arange(3)}, tmp_path / "args.pth")
    _, meta = read_checkpoint_with_meta(tmp_path / "args.pth")
    assert isinstance(meta["args"], Record) and meta["args"].lr == 0.1
    assert "".join(meta["args"].out.args).endswith("a") and "lr=0.1" in repr(meta["args"])
    np.testing.assert_array_equal(meta["array"], np.arange(3))


class Scripted(torch.nn.Module):
    """What OpenAI's archives are: TorchScript in half precision, with an integer buffer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2).half()
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x):
        return self.layer(x)


def test_torchscript_archive(tmp_path):
    module = Scripted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(tmp_path / "clip.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal(read_checkpoint(tmp_path / "clip.pt"), dict(module.state_dict()))


# ------------------------------------------------------------------------------------------------------------ bad files


class Shell:
    """A pickle that would run a command."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


class Whole(torch.nn.Module):
    """A whole module instead of its state dict."""


def truncated(write, keep=0.6):
    def make(path):
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return make


def overwritten(path):
    """A complete archive whose pickle was damaged."""
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    at = data.index(b"conv.weight")
    data[at - 40 : at + 10] = b"\xff" * 50
    path.write_bytes(bytes(data))


def plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/readme.txt", "hello")


def torch_file(content, zipped=True):
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=zipped)


BIG = {"weight": torch.zeros(2000)}
BAD = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty.*download"),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in</html>"), "it is a web page.*browser"),
    "lfs pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "LFS.*git lfs pull"),
    "text": (lambda path: path.write_text("naïve words, many of them"), "text file beginning with 'naïve words"),
    "json": (lambda path: path.write_text('{"weight_map": {"a": "b"}}'), "text file beginning with '{\"weight"),
    "noise": (lambda path: path.write_bytes(bytes(range(200, 256)) * 9), "first bytes, c8 c9 ca.* no format known"),
    "folder": (lambda path: (path.mkdir(), torch.save(STATE, path / "a.pth")), r"it is a folder.*\(a.pth\)"),
    "half a torch file": (truncated(torch_file(BIG)), "incomplete.*download"),
    "half a legacy file": (truncated(torch_file(BIG, False)), "damaged.*download"),
    "half a safetensors": (truncated(lambda path: save_file(BIG, path)), "a safetensors file but is damaged.*download"),
    "damaged inside": (overwritten, "damaged.*download"),
    "other zip": (plain_zip, "zip archive of photos/readme.txt.*unpack"),
    "other pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "pickle that torch.save did not write"),
    "whole module": (torch_file(Whole()), r"Python objects \(.*Whole.*torch.save\(model.state_dict"),
    "legacy module": (torch_file({"state_dict": STATE, "m": Record}, False), r"Python objects \(.*Record"),
    "bare tensor": (torch_file(torch.ones(2)), "it holds Tensor. .*dict from parameter names"),
    "no tensors": (torch_file({"epoch": 1, "lr": 0.1}), "it holds dict of epoch: int, lr: float"),
    "dict of dicts": (torch_file({"encoder": STATE}), "it holds dict of encoder: dict"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_files_get_one_paragraph(tmp_path, case):
    make, words = BAD[case]
    path = tmp_path / "weights.pt"
    make(path)
    with pytest.raises(ValueError, match=f"(?s){words}") as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read weights from {path}: ") and "What to do: " in message
    assert "\n" not in message and len(message) < 600


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pt")) + ": there is no such file"):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_in_a_pickle_is_executed(tmp_path, zipped):
    target, path = tmp_path / "touched", tmp_path / "trap.pth"
    torch.save({"state_dict": STATE, "x": Shell(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="can run any code"):
        read_checkpoint(path)
    assert not target.exists()


def test_the_allow_list_ends_with_the_read(tmp_path):
    torch.save({"state_dict": STATE, "args": argparse.Namespace()}, tmp_path / "a.pth")
    before = torch.serialization.get_safe_globals()
    read_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == set(before)


# -------------------------------------------------------------------------------------------------- hashes and writing


def test_state_hash_names_the_weights(tmp_path):
    first = state_hash(STATE)
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert state_hash(dict(reversed(STATE.items()))) == first
    assert state_hash({name: tensor.clone().requires_grad_() for name, tensor in STATE.items()}) == first
    save_safetensors(tmp_path / "a.safetensors", STATE)
    assert state_hash(read_checkpoint(tmp_path / "a.safetensors")) == first
    weight = STATE["conv.weight"]
    changed = [
        {"conv.weight": weight},
        {**STATE, "scale": torch.tensor(2.0)},
        {**STATE, "scale": torch.tensor(3, dtype=torch.float16)},
        {**STATE, "conv.weight": weight.view(3, 2)},
        {**STATE, "conv.weight": weight.flip(0)},
        {"conv.bias": weight, "scale": STATE["scale"]},
    ]
    assert len({first, *map(state_hash, changed)}) == 1 + len(changed)
    assert state_hash({"t": weight.t()}) == state_hash({"t": weight.t().contiguous()})
    state_hash({"flag": torch.tensor([True]), "half": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0, 3)})


def test_file_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_atomic_write_replaces_at_the_end_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "result.npz"
    with atomic_write(path) as part:
        assert part.suffix == ".npz" and part.parent == path.parent
        part.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(path.parent) == ["result.npz"]


def test_save_safetensors(tmp_path):
    shared = torch.arange(12.0).view(3, 4)
    state = {"a": shared, "b": shared, "row": shared[1], "t": shared.t(), "p": torch.nn.Parameter(torch.ones(2))}
    meta = {"name": "tiny", "sizes": [1, 2], "z": "ä", "y": "1", "x": "2"}
    files = []
    for i in range(4):
        path = tmp_path / f"{i}.safetensors"
        save_safetensors(path, state, meta)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
    back, notes = read_checkpoint_with_meta(path)
    assert equal(back, {name: tensor.detach() for name, tensor in state.items()})
    assert notes == {"name": "tiny", "sizes": "[1, 2]", "z": "ä", "y": "1", "x": "2"}
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_slice("a")[1:2], shared[1:2])
    save_safetensors(path, {"empty": torch.zeros(0, 3), "half": torch.ones(1, dtype=torch.bfloat16)})
    assert read_checkpoint(path)["empty"].shape == (0, 3)
