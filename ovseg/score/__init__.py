"""Dense features × word embeddings → scores."""

from .cosine import CosineScore
from .denoise import DenoisedScore
from .streaming import RunningArgmax, class_chunks, resize_rows, source_rows

__all__ = ["CosineScore", "DenoisedScore", "RunningArgmax", "class_chunks", "resize_rows", "source_rows"]
