"""Runs ovseg's modules on each kind of golden file.  Cases are found by their modules."""

from importlib import import_module

from ovseg.registry import submodules

from .common import CASES

__all__ = ["CASES"]

for module in submodules(__name__):
    import_module(module)
