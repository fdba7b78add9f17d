"""Sliding windows over an image."""

Box = tuple[int, int, int, int]


def windows(height: int, width: int, window: int | None, stride: int) -> list[Box]:
    """Windows (top, left, bottom, right) that cover the image, row by row.

    The last window of a row or column is shifted back to end at the border; a side shorter than the window gets a
    single window of that length, without padding.
    """
    if window is None:
        return [(0, 0, height, width)]
    boxes = []
    for row in range(max(height - window + stride - 1, 0) // stride + 1):
        for column in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            boxes.append((max(bottom - window, 0), max(right - window, 0), bottom, right))
    return boxes
