"""Compatibility: the replacement for compiled mmcv operators, the checkpoint reader, the version table.

Importing this package is cheap: PyTorch is loaded by the first operator or checkpoint, not before.
"""

from .mmcv_ops import install_mmcv_ops

__all__ = ["install_mmcv_ops"]
