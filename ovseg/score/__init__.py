"""Dense features × text embeddings → scores.  Scorers are found by their modules, as methods in ``ovseg.dense`` are."""

from ovseg.registry import SCORERS, registered_in

from .ensemble import geometric_ensemble
from .minmax import min_max

__all__ = ["geometric_ensemble", "min_max"]

__getattr__ = registered_in(__name__, SCORERS)
