"""Notices for people, each said once."""

from ovseg.printable import say
from ovseg.threads import Turns

_said: set[str] = set()
_turns = Turns()


def say_once(notice: str):
    """Print one line to stderr, the first time that it comes."""
    with _turns:
        if not notice or notice in _said:
            return
        _said.add(notice)
    say(notice, error=True)
