"""ovseg in five lines: ``load`` a method, set the words, call it on pictures."""

from .locate import Locator
from .methods import list_methods
from .predictor import Predictor, load

__all__ = ["Locator", "Predictor", "list_methods", "load"]
