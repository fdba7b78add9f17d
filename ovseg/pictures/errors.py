"""What goes wrong with pictures."""


class ImageError(ValueError):
    """The source cannot be read as an image."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no such file, folder or match."""

    __str__ = ValueError.__str__
