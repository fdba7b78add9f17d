"""Dense features × word embeddings → scores."""

from .best_word import best_word
from .centred import CentredScore
from .cosine import CosineScore
from .denoise import DenoisedScore
from .enlarged import EnlargedScore
from .feedback import FeedbackScore
from .found import FoundScore
from .minmax import min_max
from .streaming import RunningArgmax, class_chunks, resize_rows, source_rows
from .whole_image import WholeImageScore

__all__ = [
    "CentredScore",
    "CosineScore",
    "EnlargedScore",
    "FeedbackScore",
    "FoundScore",
    "WholeImageScore",
    "best_word",
    "min_max",
    "DenoisedScore",
    "RunningArgmax",
    "class_chunks",
    "resize_rows",
    "source_rows",
]
