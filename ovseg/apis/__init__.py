"""ovseg in five lines: ``load`` a method, set the words, call it on pictures."""

from .detector import Detector
from .load import load, load_detector
from .locate import Locator
from .methods import list_methods
from .predictor import Predictor

__all__ = ["Detector", "Locator", "Predictor", "list_methods", "load", "load_detector"]
