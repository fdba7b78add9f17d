"""Results that can be looked at."""

import io
from abc import ABC, abstractmethod

from PIL import Image


class PlotMixin(ABC):
    """A result with a picture of itself."""

    @abstractmethod
    def plot(self) -> Image.Image:
        """The picture with what was found."""

    def show(self) -> None:
        """Open ``plot()`` in the image viewer of the system."""
        self.plot().show()

    def _repr_png_(self) -> bytes:  # what notebooks display
        buffer = io.BytesIO()
        self.plot().save(buffer, "PNG")
        return buffer.getvalue()
