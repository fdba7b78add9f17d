"""Composed scenes with exact labels: what the embedded tiny CLIP is trained on and measured with."""

from .captions import caption
from .class_names import object_names, spellings, stuff_names
from .compose import Scene, SceneComposer
from .protocols import candidates

__all__ = ["Scene", "SceneComposer", "candidates", "caption", "object_names", "spellings", "stuff_names"]
