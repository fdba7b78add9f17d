"""Compare ovseg with the outputs of the authors' own code.

    python -m ovseg.testing.parity FILE.npz [FILE.npz …]

A file holds ``w/<parameter>`` (the visual tower in OpenAI's naming), ``image``, ``text``, the expected arrays, and
``meta`` (JSON: ``key`` names the method, the rest are its hyper-parameters).  ovseg's modules are built from weights
and meta, run, and only then compared, at rtol 1e-4 and atol 1e-5 (label maps: at most 0.1 % differing pixels).  Where
an array's values exceed 1, atol is in units of its largest magnitude: the ResNet trunk reaches 3.7e3, and there the
authors' own float32 output is 2.5e-3 away from the same network in float64.  An array that was stored in half precision
may differ by that rounding too.  Where NaN is expected there must be NaN, and nowhere else.  One line per expected
array: ``file array max_abs_err max_rel_err ok|FAIL``.  Exit code 1 if any array fails or is not compared.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovseg.towers.build import build_visual

from .cases import CASES

HALF_ROUNDING = 2.0**-11  # largest relative rounding of float16
INPUTS = ("image", "text", "meta")


class Golden:
    """One file; cases can read its inputs but not its expected arrays."""

    def __init__(self, path: Path):
        self.path = path
        self._file = np.load(path, allow_pickle=False)
        self.meta = json.loads(str(self._file["meta"]))
        self.case: Callable | None = CASES.get(self.meta["key"])
        self._inputs = (*INPUTS, "w/", *getattr(self.case, "inputs", ()))
        self.names = [n for n in self._file.files if not self._is_input(n)]

    def _is_input(self, name: str) -> bool:
        return any(fnmatchcase(name, f"{known}*" if known.endswith("/") else known) for known in self._inputs)

    @property
    def arrays(self) -> list[str]:
        """Names of all arrays, inputs and expected ones."""
        return self._file.files

    def input(self, name: str) -> Tensor:
        if not self._is_input(name):
            raise KeyError(f"{name} is an expected array, not an input")
        return torch.from_numpy(self._file[name])

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The inputs whose names begin with ``prefix``, without it."""
        return {n[len(prefix) :]: self.input(n) for n in self._file.files if n.startswith(prefix)}

    def expected(self, name: str) -> np.ndarray:
        return self._file[name]

    def tower(self, **changes):
        """The visual tower of the file; ``changes`` go to ``build_visual``."""
        weights = self.under("w/")
        resnet = "class_embedding" not in weights
        heads = self.meta["attn_heads"] if resnet else self.meta.get("heads", weights["conv1.weight"].shape[0] // 64)
        options = {"quick_gelu": self.meta.get("act", "QuickGELU") == "QuickGELU", "eps": self.meta.get("ln_eps", 1e-5)}
        return build_visual(weights, heads, **(options | changes))


def stored_in_half(expected: np.ndarray) -> bool:
    """Whether an array was rounded to float16 before it was stored, that is, all its values are exact in float16."""
    fractional = np.count_nonzero(expected % 1)
    return fractional >= 64 and bool(np.all(expected.astype(np.float16) == expected))


def errors(ours: np.ndarray, expected: np.ndarray) -> tuple[float, float, bool]:
    """Largest absolute and relative error, and whether they are within tolerance."""
    if ours.shape != expected.shape:
        return float("inf"), float("inf"), False
    if np.issubdtype(expected.dtype, np.integer) or expected.dtype == bool:
        differing = float(np.mean(ours != expected)) if expected.size else 0.0
        return differing, differing, differing <= 1e-3
    if not np.array_equal(np.isnan(ours), np.isnan(expected)):
        return float("nan"), float("nan"), False
    sound = ~np.isnan(expected)
    ours, expected = ours[sound].astype(np.float64), expected[sound].astype(np.float64)
    absolute = np.abs(ours - expected)
    relative = absolute / np.maximum(np.abs(expected), 1e-12)
    atol = 1e-5 * max(1.0, float(np.abs(expected).max(initial=0)))
    rtol = 1e-4 + (HALF_ROUNDING if stored_in_half(expected) else 0)
    within = np.allclose(ours, expected, rtol=rtol, atol=atol)
    return float(absolute.max(initial=0)), float(relative.max(initial=0)), bool(within)


def compare(path: Path) -> Iterator[tuple[str, str, bool]]:
    """(array, the rest of its line, ok) for every expected array of one file."""
    golden = Golden(path)
    ours = {}
    if golden.case is not None:
        with torch.inference_mode():
            ours = {name: value.detach().numpy() for name, value in golden.case(golden).items()}
    for name in golden.names:
        if name not in ours:
            yield name, "nan nan FAIL (not compared)", False
            continue
        absolute, relative, ok = errors(ours[name], golden.expected(name))
        yield name, f"{absolute:.3g} {relative:.3g} {'ok' if ok else 'FAIL'}", ok


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ovseg.testing.parity", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    good = True
    for path in parser.parse_args(argv).files:
        try:
            for name, line, ok in compare(path):
                print(f"{path.name} {name} {line}")
                good &= ok
        except (OSError, ValueError, KeyError) as error:
            print(f"{path.name} - nan nan FAIL ({error})")
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
