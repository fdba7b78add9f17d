"""COCO run-length encoding of masks, in numpy.

A mask is read column by column (down first, then right) as runs of zeros and ones in turn, starting with zeros; the
lengths are the *counts*. COCO's compressed form stores each count as a difference to the one two places before (from
the fourth count on), in groups of five bits, lowest first; a character holds one group, bit six says that another
follows, and 48 is added to stay printable. The top bit of the last group is the sign.

    {"size": [H, W], "counts": "..."}   compressed, as pycocotools writes it
    {"size": [H, W], "counts": [...]}   uncompressed
"""

import operator
from typing import Any

import numpy as np

_GROUPS = 8  # of five bits: counts below 2**39


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Compressed RLE of an (H, W) mask, true where it is not 0.

    Raises:
        ValueError: the mask is not two-dimensional.
    """
    mask = _as_mask(mask)
    return {"size": list(mask.shape), "counts": compress(_counts(mask))}


def decode(rle: dict[str, Any]) -> np.ndarray:
    """(H, W) bool mask of an RLE, compressed (str or bytes) or uncompressed (list of ints).

    Raises:
        ValueError: the RLE lacks a part, or its counts do not add up to H * W.
    """
    height, width, counts = _read(rle)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def area(rle: dict[str, Any]) -> int:
    """Number of pixels of an RLE's mask, which is not unpacked.

    Raises:
        ValueError: as of ``decode``.
    """
    return int(_read(rle)[2][1::2].sum())


def compress(counts: np.ndarray) -> str:
    """COCO's string for a list of counts."""
    rest = np.array(counts, dtype=np.int64)
    rest[3:] -= rest[1:-2].copy()
    characters = np.empty((len(rest), _GROUPS), dtype=np.uint8)
    used = np.zeros((len(rest), _GROUPS), dtype=bool)
    alive = np.ones(len(rest), dtype=bool)
    for i in range(_GROUPS):
        group = rest & 31
        rest >>= 5
        more = np.where(group & 16, rest != -1, rest != 0)
        characters[:, i] = group + 32 * more + 48
        used[:, i] = alive
        alive &= more
    return characters[used].tobytes().decode("ascii")


def decompress(string: str | bytes) -> np.ndarray:
    """Counts, (n,) int64, of COCO's string.

    Raises:
        ValueError: a character that the format does not know, or an end in the middle of a number.
    """
    raw = string.encode("ascii", "replace") if isinstance(string, str) else string
    data = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    last = (data & 32) == 0
    if ((data < 0) | (data > 63)).any() or (len(data) and not last[-1]):
        raise ValueError(f"not a compressed COCO RLE, or cut off: {string!r:.100}.")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    if len(ends) and (ends - starts).max() >= _GROUPS:
        raise ValueError(f"a count of a compressed COCO RLE is too large: {string!r:.100}.")
    place = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
    counts = np.add.reduceat((data & 31) << (5 * place), starts) if len(ends) else np.zeros(0, dtype=np.int64)
    negative = (data[ends] & 16) != 0
    counts -= np.where(negative, np.int64(1) << (5 * (ends - starts + 1)), 0)
    counts[1::2] = np.cumsum(counts[1::2])  # undoes the differences, odd and even places apart
    counts[2::2] = np.cumsum(counts[2::2])  # the first count is stored as it is
    return counts


def place(rle: dict[str, Any], offset: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """The mask of a part as that of the whole picture, false outside the part.

    Args:
        rle: of the part, (h, w).
        offset: (x, y) of its top left corner in the whole picture.
        size: (H, W) of the whole picture.

    Raises:
        ValueError: as of ``decode``, or a part that reaches beyond the picture.
    """
    mask, (left, top), (height, width) = decode(rle), offset, size
    h, w = mask.shape
    if not (0 <= left <= width - w and 0 <= top <= height - h):
        raise ValueError(f"a mask of size [{h}, {w}] at x={left}, y={top} reaches beyond a picture of {list(size)}.")
    edges = np.diff(mask.T.astype(np.int8), axis=1, prepend=0, append=0)
    column, first = np.nonzero(edges == 1)
    starts = (column + left) * height + top + first
    ends = (column + left) * height + top + np.nonzero(edges == -1)[1]
    apart = starts[1:] != ends[:-1]  # a run that goes on in the next column is one
    starts, ends = np.append(starts[:1], starts[1:][apart]), np.append(ends[:-1][apart], ends[-1:])
    return {"size": [height, width], "counts": compress(_run_lengths(starts, ends, height * width))}


def encode_labels(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """All classes of an (H, W) label map in one pass over its pixels.

    Returns:
        For each id that occurs, rising: ``rle`` (compressed), ``bbox`` [x, y, width, height] and ``area``, in pixels.
    """
    labels = np.asarray(labels)
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1)) if flat.size else np.zeros(0, np.int64)
    ends = np.append(starts[1:], flat.size)[: len(starts)]
    ids = flat[starts]
    order = np.argsort(ids, kind="stable")
    present, first = np.unique(ids[order], return_index=True)
    encoded = {}
    for label, runs in zip(present, np.split(order, first[1:]), strict=True):
        begin, end = starts[runs], ends[runs]
        counts = _run_lengths(begin, end, flat.size)
        left, right = begin[0] // height, (end[-1] - 1) // height
        whole = begin // height != (end - 1) // height  # a run that goes on in the next column spans top to bottom
        top, bottom = (0, height - 1) if whole.any() else ((begin % height).min(), ((end - 1) % height).max())
        encoded[int(label)] = {
            "rle": {"size": [height, width], "counts": compress(counts)},
            "bbox": [int(left), int(top), int(right - left + 1), int(bottom - top + 1)],
            "area": int((end - begin).sum()),
        }
    return encoded


def decode_labels(rles: dict[int, dict[str, Any]], size: tuple[int, int], fill: int) -> np.ndarray:
    """Inverse of ``encode_labels``: (H, W) uint16 ids, ``fill`` where no mask is.

    Raises:
        ValueError: a broken RLE, one of another size, or masks that overlap.
    """
    height, width = size
    starts: list[np.ndarray] = [np.zeros(0, np.int64)]
    ends: list[np.ndarray] = [np.zeros(0, np.int64)]
    ids: list[np.ndarray] = [np.zeros(0, np.int64)]
    for label, rle in rles.items():
        *own, counts = _read(rle)
        if tuple(own) != (height, width):
            raise ValueError(f"the RLE of id {label} has the size {own}, expected [{height}, {width}].")
        edges = np.cumsum(counts)
        ends.append(edges[1::2])
        starts.append(edges[1::2] - counts[1::2])
        ids.append(np.full(len(ends[-1]), label))
    start, end, labels = (np.concatenate(part) for part in (starts, ends, ids))
    order = np.argsort(start, kind="stable")
    start, end, labels = start[order], end[order], labels[order]
    gaps = np.append(start, height * width) - np.append(0, end)
    if (gaps < 0).any():
        raise ValueError("the masks of several ids overlap, but a pixel has one id.")
    values = np.column_stack((np.full(len(gaps), fill), np.append(labels, fill))).ravel()
    lengths = np.column_stack((gaps, np.append(end - start, 0))).ravel()
    return np.ascontiguousarray(np.repeat(values.astype(np.uint16), lengths).reshape(width, height).T)


def _read(rle: dict[str, Any]) -> tuple[int, int, np.ndarray]:
    try:
        height, width = (operator.index(side) for side in rle["size"])
        counts = rle["counts"]
        if not isinstance(counts, str | bytes):
            numbers = np.asarray(counts)
            if numbers.dtype.kind not in "iu" and numbers.size:
                raise TypeError("counts are whole numbers")
            counts = numbers.astype(np.int64)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f'an RLE is {{"size": [H, W], "counts": ...}}, got {rle!r:.200}.') from error
    counts = decompress(counts) if isinstance(counts, str | bytes) else counts
    if height < 0 or width < 0:
        raise ValueError(f"the size of an RLE is [height, width], got [{height}, {width}].")
    outside = counts.ndim != 1 or (counts < 0).any() or (counts > height * width).any()
    if outside or counts.sum() != height * width:
        raise ValueError(
            f"the counts of an RLE of size [{height}, {width}] must be >= 0 and add up to {height * width}, but add up "
            f"to {counts.sum()}; it was cut off, or its size is [width, height] by mistake."
        )
    return height, width, counts


def _run_lengths(starts: np.ndarray, ends: np.ndarray, total: int) -> np.ndarray:
    """Counts of runs of ones, [start, end) in rising order, among ``total`` pixels."""
    counts = np.diff(np.column_stack((starts, ends)).ravel(), prepend=0)
    rest = total - int(counts.sum())
    return np.append(counts, rest) if rest else counts


def _as_mask(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has two dimensions (H, W), got the shape {mask.shape}.")
    return mask != 0


def _counts(mask: np.ndarray) -> np.ndarray:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start = [0, 0] if flat.size and flat[0] else [0]
    return np.diff(np.concatenate((start, edges, [flat.size])))
