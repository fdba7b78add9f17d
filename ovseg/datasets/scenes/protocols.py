"""Which names a prediction may choose from: the two protocols of the composed scenes."""

import numpy as np

from .class_names import object_names, stuff_names

CANDIDATES = 20


def candidates(labels: np.ndarray, protocol: str, seed: int) -> list[int]:
    """Sorted class ids a prediction may choose from.

    Args:
        labels: (H, W) class ids of the scene.
        protocol: ``full``, all names; ``v20``, the present names and random others up to 20.
        seed: the scene's seed, which also draws the others.
    """
    total = len(object_names()) + len(stuff_names())
    if protocol == "full":
        return list(range(total))
    present = np.unique(labels)
    others = np.setdiff1d(np.arange(total), present)
    drawn = np.random.default_rng([seed, CANDIDATES]).choice(others, max(0, CANDIDATES - len(present)), replace=False)
    return sorted(map(int, [*present, *drawn]))
