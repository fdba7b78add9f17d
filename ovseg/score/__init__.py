"""Dense features × word embeddings → scores."""

from .best_word import best_word
from .centred import CentredScore
from .confidence import Confidence
from .cosine import CosineScore
from .denoise import DenoisedScore
from .enlarged import EnlargedScore
from .ensemble import geometric_ensemble
from .feedback import FeedbackScore
from .found import FoundScore
from .knots import KnotMaps, make_axis, side_by_side
from .minmax import min_max
from .streaming import RunningArgmax, class_chunks, resize_rows, source_rows
from .whole_image import WholeImageScore
from .winners import winning_words

__all__ = [
    "CentredScore",
    "Confidence",
    "CosineScore",
    "DenoisedScore",
    "EnlargedScore",
    "FeedbackScore",
    "FoundScore",
    "KnotMaps",
    "RunningArgmax",
    "WholeImageScore",
    "best_word",
    "class_chunks",
    "geometric_ensemble",
    "make_axis",
    "min_max",
    "resize_rows",
    "side_by_side",
    "source_rows",
    "winning_words",
]
