"""Composed scenes with exact labels: what the embedded tiny CLIP is trained on and measured with."""

from .captions import caption
from .compose import Scene, SceneComposer
from .protocols import candidates
from .words import object_names, spellings, stuff_names

__all__ = ["Scene", "SceneComposer", "candidates", "caption", "object_names", "spellings", "stuff_names"]
