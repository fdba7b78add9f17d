"""The optional parts of an installation, and the one sentence that says which one is missing."""

from importlib.util import find_spec

EXTRAS = {
    "mm": ("mmcv", "mmseg", "mmdet", "pycocotools"),
    "raster": ("rasterio",),
}
"""Import names of what each extra of pyproject.toml brings."""


class MissingExtra(ImportError):
    """A part of ovseg that was not installed was asked for."""


def require(extra: str, what: str) -> None:
    """Check that an extra is installed, without importing it.

    Args:
        extra: a key of ``EXTRAS``.
        what: what needs it, the subject of the sentence.

    Raises:
        MissingExtra: with the command to type.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtra(f'{what} needs {", ".join(missing)}: pip install "ovseg[{extra}]"')
