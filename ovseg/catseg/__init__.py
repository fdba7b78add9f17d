"""Cost volumes between image and text, and their learned aggregation."""

from .aggregation import CostAggregation, cost_volume
from .score import CostScore

__all__ = ["CostAggregation", "CostScore", "cost_volume"]
