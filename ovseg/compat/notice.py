"""Notices for people, each said once."""

from ovseg.printable import say

_said: set[str] = set()


def say_once(notice: str):
    """Print one line to stderr, the first time that it comes."""
    if notice and notice not in _said:
        _said.add(notice)
        say(notice, error=True)
