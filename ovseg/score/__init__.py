"""Dense features × word embeddings → scores."""

from .centred import CentredScore
from .cosine import CosineScore
from .denoise import DenoisedScore
from .enlarged import EnlargedScore
from .ensemble import geometric_ensemble
from .feedback import FeedbackScore
from .found import FoundScore
from .minmax import min_max
from .whole_image import WholeImageScore

__all__ = [
    "CentredScore",
    "CosineScore",
    "DenoisedScore",
    "EnlargedScore",
    "FeedbackScore",
    "FoundScore",
    "WholeImageScore",
    "geometric_ensemble",
    "min_max",
]
