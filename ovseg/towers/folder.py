"""The weights in a folder: one file, one model in two formats, or parts with an index."""

from pathlib import Path

from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint_with_meta
from ovseg.compat.untrusted import read_json, shown

from .fetch import HUB_FILES

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
USUAL = (*HUB_FILES, "open_clip_pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict, Path]:
    """The tensors of the one model in a folder, what stands beside them, and the file or index that holds them.

    Raises:
        FileNotFoundError: no weights.
        ValueError: several models.
    """
    if index := next((path for path in sorted(folder.iterdir()) if path.name.endswith(INDEX)), None):
        return read_parts(index), {}, index
    file = weights_file(folder)
    return *read_checkpoint_with_meta(file), file


def weights_file(folder: Path) -> Path:
    """The file with the weights of a folder's one model.

    Raises:
        FileNotFoundError: no weights.
        ValueError: several models, with their files.
    """
    files = sorted((p for p in folder.iterdir() if p.suffix in SUFFIXES), key=lambda p: p.suffix != ".safetensors")
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no weights: expected open_clip_config.json and a file such as {HUB_FILES[0]}; found "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}."
        )
    usual = [folder / name for name in USUAL if folder / name in files]
    if not usual and len({file.stem for file in files}) > 1:
        raise ValueError(
            f"{folder} holds several weights: {', '.join(sorted(file.name for file in files)[:12])}. Name the file: "
            f"--weights {folder / sorted(file.name for file in files)[-1]}."
        )
    return usual[0] if usual else files[0]


def read_parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names, which lie beside it.

    Raises:
        ValueError: no index of such files, or files without the tensors it promises.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} is no index of weights: expected a mapping weight_map from tensors to files.")
    state: dict[str, Tensor] = {}
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise ValueError(f"{index} names the file {shown(name)}; expected weights in the same folder.")
        state |= read_checkpoint_with_meta(index.parent / name)[0]
    if absent := [tensor for tensor in places if tensor not in state]:
        raise ValueError(f"{index} promises {len(absent)} tensors that its files lack, such as {shown(absent[0])}.")
    return state
