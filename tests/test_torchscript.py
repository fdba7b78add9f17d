"""TorchScript archives: their tensors are read, their programs are not run."""

import io
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import Tensor, nn

from ovseg.compat.checkpoint import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2).half()
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("passing", torch.ones(2), persistent=False)

    def forward(self, x):
        return self.linear(x)


class Outer(nn.Module):
    """Half precision, integers, booleans, views, shared tensors, lists, absent parameters, attributes beside."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ModuleList([nn.Linear(2, 2)])[0])
        self.turned = nn.Parameter(torch.arange(12.0).view(3, 4).t())
        self.part = nn.Parameter(torch.arange(20.0).view(4, 5)[1:3, 2:4])
        self.tied = self.layers[2].weight
        self.register_parameter("absent", None)
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("scalar", torch.tensor(0.5, dtype=torch.bfloat16))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.attribute, self.number, self.words = torch.ones(3), 5, ["a", "b"]

    def forward(self, x):
        return self.layers[2](self.inner(x).float()) + self.attribute.sum() + self.number


def save(module: nn.Module, path, how="script"):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.ones(1, 3).half())
        made.save(str(path))
        return torch.jit.load(str(path)).state_dict()


@pytest.mark.parametrize("how", ["script", "trace"])
def test_what_is_read_is_what_running_gives(tmp_path, how):
    expected = save(Outer().eval(), tmp_path / "clip.pt", how)
    state = read_checkpoint(tmp_path / "clip.pt")
    assert list(state) == list(expected) and "inner.linear.weight" in state and "attribute" not in state
    for name, tensor in expected.items():
        got = state[name]
        assert (got.dtype, got.shape, got.stride()) == (tensor.dtype, tensor.shape, tensor.stride()), name
        assert torch.equal(got, tensor), name
    assert state["tied"].data_ptr() == state["layers.2.weight"].data_ptr()


class Restores(nn.Module):
    """Would never return when PyTorch opens the archive."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x + self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]):
        self.weight, self.training = state[0], state[1]
        while bool(self.weight.sum() > 0):
            pass


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside, self.linear = Restores(), nn.Linear(2, 2)

    def forward(self, x):
        return self.inside(self.linear(x))


def script(module: nn.Module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))


def test_a_program_that_never_returns_does_not_begin(tmp_path):
    script(Around(), tmp_path / "around.pt")
    with pytest.warns(UserWarning, match="restores inside by itself"):
        state = read_checkpoint(tmp_path / "around.pt")
    assert list(state) == ["linear.weight", "linear.bias"]


def test_an_archive_without_plain_tensors_is_refused(tmp_path):
    script(Restores(), tmp_path / "alone.pt")
    with pytest.raises(ValueError, match="convert it") as error:
        read_checkpoint(tmp_path / "alone.pt")
    assert "\n" not in str(error.value)


def rewritten(source, target, change, compression=zipfile.ZIP_STORED):
    """A copy of an archive with the bytes of its records changed by name."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return target


class Calls:
    def __reduce__(self):
        return open, ("written", "w")


@pytest.mark.parametrize(
    "name, change",
    {
        "a pickle that calls": lambda n, data: pickle.dumps(Calls(), 2) if n.endswith("data.pkl") else data,
        "a pickle of protocol 4": lambda n, data: pickle.dumps([Calls()], 4) if n.endswith("data.pkl") else data,
        "an empty pickle": lambda n, data: b"" if n.endswith("data.pkl") else data,
        "a claim beyond the storage": lambda n, data: data[:4] if "/data/" in n else data,
        "a program without its class": lambda n, data: b"" if n.endswith(".py") else data,
        "a large memo": lambda n, data: b"\x80\x02Nr\xff\xff\xff\xff." if n.endswith("data.pkl") else data,
        "numbers of another order": lambda n, data: b"big" if n.endswith("byteorder") else data,
    }.items(),
)
def test_changed_archives(tmp_path, monkeypatch, name, change):
    monkeypatch.chdir(tmp_path)
    save(Outer().eval(), tmp_path / "clip.pt")
    bad = rewritten(tmp_path / "clip.pt", tmp_path / "bad.ckpt", change)
    with pytest.raises(ValueError, match="cannot read weights") as error:
        read_checkpoint(bad)
    assert "\n" not in str(error.value) and not (tmp_path / "written").exists()


def test_compressed_records_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1000, 1000)}, tmp_path / "zeros.pth")
    bomb = rewritten(tmp_path / "zeros.pth", tmp_path / "bomb.pth", lambda n, data: data, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 50_000
    with pytest.raises(ValueError, match="compressed"):
        read_checkpoint(bomb)


def test_one_number_shown_a_billion_times_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(100_000, 100_000)}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="are stored"):
        read_checkpoint(tmp_path / "wide.pth")


def test_names_of_tensors_are_printable(tmp_path):
    torch.save({"weight\x1b]0;owned\x07": torch.zeros(1)}, tmp_path / "names.pth")
    with pytest.raises(ValueError, match="name of one of its tensors") as error:
        read_checkpoint(tmp_path / "names.pth")
    assert "\x1b" not in str(error.value)


def test_a_clip_of_openai_is_such_an_archive(tmp_path):
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    from ovseg.towers import load_tower

    torch.manual_seed(1)
    vision = CLIPVisionCfg(layers=2, width=64, patch_size=16, image_size=64)
    text = CLIPTextCfg(context_length=77, vocab_size=100, width=64, heads=1, layers=2)
    clip = CLIP(32, vision, text, quick_gelu=True).half().eval()
    for name, value in dict(input_resolution=64, context_length=77, vocab_size=100).items():
        if hasattr(clip, name):
            delattr(clip, name)
        clip.register_buffer(name, torch.tensor(value))
    state = {name: tensor for name, tensor in clip.state_dict().items() if name != "attn_mask"}

    class Archive(nn.Module):
        def forward(self, x):
            return x

    archive = Archive()
    for name, tensor in state.items():
        place = archive
        *path, last = name.split(".")
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, Archive())
            place = getattr(place, part)
        place.register_buffer(last, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(archive, torch.ones(1)).save(str(tmp_path / "ViT.pt"))
    torch.save(state, tmp_path / "state.pt")
    towers = [load_tower(tmp_path / name, quick_gelu=True) for name in ("ViT.pt", "state.pt")]
    assert towers[0].card.hash == towers[1].card.hash
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(towers[0](pixels)[0], towers[1](pixels)[0])


def test_pipes_and_devices_are_not_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match="may never end"):
        read_checkpoint(tmp_path / "pipe.pth")


def test_a_tar_archive_of_old_is_refused(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as tar:
        data = pickle.dumps(Calls())
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match="cannot read weights"):
        read_checkpoint(tmp_path / "old.pth")
