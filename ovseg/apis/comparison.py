"""What methods gave on one picture: the values, without the work that made them and the drawing that shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ovseg.results.provenance import Weights
from ovseg.results.result import Result
from ovseg.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class MethodResult:
    """What one method gave.

    method   its name, with the options that were given
    result   its segmentation
    own      seconds from pixels to labels beyond what it shares with other methods
    shared   seconds of the work that other methods read as well; ``own + shared`` is what the method takes alone
    memory   how far memory rose, in bytes (``Comparison.memory_is``); None where unknown
    """

    method: str
    result: Result
    own: float
    shared: float
    memory: int | None

    @property
    def alone(self) -> float:
        return self.own + self.shared


@dataclass(frozen=True)
class ComparisonValues:
    """M methods on one picture of H×W pixels.

    image      (H, W, 3) uint8 RGB
    entries    what each method gave, in the order asked for
    failed     why a method gave nothing, by its name
    shared     seconds of the work that more than one method read, counted once
    agreement  (H, W) float32 in [1/M, 1]: the share of methods that give a pixel the label most of them give it
    majority   (H, W) that label; of equally frequent ones the one with the smallest id
    pairwise   (M, M) float64 in [0, 1]: the share of pixels on which two methods agree
    protocol   the settings common to all, None where each method keeps its own
    weights    of the tower;  device  where it ran
    memory_is  what the memory figures measure
    """

    image: np.ndarray
    vocabulary: Vocabulary
    entries: tuple[MethodResult, ...]
    failed: dict[str, str]
    shared: float
    agreement: np.ndarray
    majority: np.ndarray
    pairwise: np.ndarray
    protocol: dict[str, Any] | None
    weights: Weights
    device: str
    memory_is: str

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(entry.method for entry in self.entries)

    @property
    def with_majority(self) -> np.ndarray:
        """(M,) share of pixels on which a method gives the majority's label."""
        return np.array([np.mean(entry.result.labels == self.majority) for entry in self.entries])

    def to_dict(self) -> dict[str, Any]:
        """All numbers but the maps, as JSON can hold them."""
        height, width = self.image.shape[:2]
        rows = [
            {
                "label": entry.method,
                **entry.result.provenance.to_dict(),
                "seconds_own": entry.own,
                "seconds_shared": entry.shared,
                "seconds_alone": entry.alone,
                "memory_bytes": entry.memory,
                "agrees_with_majority": float(share),
                "areas": entry.result.areas,
            }
            for entry, share in zip(self.entries, self.with_majority, strict=True)
        ]
        return {
            "format": "ovseg-comparison",
            "format_version": 1,
            "size": {"width": width, "height": height},
            "weights": self.weights.to_dict(),
            "device": self.device,
            "classes": list(self.vocabulary.names),
            "common_protocol": self.protocol,
            "methods": rows,
            "failed": [{"label": name, "reason": reason} for name, reason in self.failed.items()],
            "seconds_shared_blocks": self.shared,
            "seconds_together": self.shared + sum(entry.own for entry in self.entries),
            "memory_is": self.memory_is,
            "agreement": {
                "mean": float(self.agreement.mean()),
                "unanimous": float((self.agreement == 1).mean()),
                "methods": list(self.methods),
                "pairwise": self.pairwise.tolist(),
            },
        }
