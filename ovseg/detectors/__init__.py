"""Models of ovseg that answer with boxes."""

from .phrase_localizer import PhraseLocalizer

__all__ = ["PhraseLocalizer"]
