"""How a number was made: everything between the picture file and the label map that is not the model."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real

from ovseg.compat.former_names import former
from ovseg.pictures.levels import check_bands, check_range
from ovseg.spelling import did_you_mean


def digest(settings: dict) -> str:
    """Twelve hexadecimal digits that stand for settings, whatever their order; the same as when keys had their former
    spelling."""
    return hashlib.sha256(json.dumps(former(settings), sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Protocol:
    """Settings of one prediction; saved beside every result.

    short_side        resize so that the short side has this many pixels, the aspect kept (None: native size)
    max_long_side     … unless the long side would exceed this
    size              resize to exactly (H, W) instead
    window, stride    square sliding window in pixels of the resized picture; window None: the whole picture at once
    window_batch      windows per forward pass, at most
    view              side in pixels of the square that every window is resized to for the tower (None: as it is)
    whole_view        one more view, the whole picture at the size of a window; its maps count as much as those of all
                      windows together
    templates         a named prompt set or own templates
    logit_scale       τ of the softmax over words
    threshold         pixels whose best class has a lower probability become background (class 0), in [0, 1]
    area_threshold    foreground classes with less than this share of all foreground pixels are dropped, in [0, 1]
    precision         of the tower and the extractor: "float32", or "bfloat16" or "float16" by torch.autocast, which are
                      faster where a device computes in them and change some labels; scores are always float32
    normalization     "weights": the statistics that travel with the weights; "imagenet"
    refine            names or configs of refiners, in order
    refine_image      what refiners see: "resized", the resized picture enlarged to its own size again (as the reference
                      codes do), or "original", the picture itself
    range             (low, high), the values of a picture that are black and white (None: as the picture or its type
                      has it)
    bands             one or three bands of a raster to look at, counted from 1 (None: as the file says)
    memory            bytes that the class maps of one picture, or the tokens of one forward pass, may take at a time

    Raises:
        ValueError: a setting out of its range.
    """

    short_side: int | None = 336
    max_long_side: int = 2048
    size: tuple[int, int] | None = None
    window: int | None = 224
    stride: int = 112
    window_batch: int = 16
    view: int | None = None
    whole_view: bool = False
    templates: str | tuple[str, ...] = "imagenet_80"
    logit_scale: float = 40.0
    threshold: float = 0.0
    area_threshold: float = 0.0
    precision: str = "float32"
    normalization: str = "weights"
    refine: tuple = ()
    refine_image: str = "resized"
    range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None
    memory: int = 256 * 2**20

    def __post_init__(self):
        for name in ("size", "refine"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if isinstance(self.templates, list):
            object.__setattr__(self, "templates", tuple(self.templates))
        object.__setattr__(self, "range", check_range(self.range))
        object.__setattr__(self, "bands", check_bands(self.bands))
        self._check_numbers()
        checks = {
            "short_side": self.short_side is None or self.short_side >= 1,
            "max_long_side": self.max_long_side >= 1,
            "size": self.size is None or (len(self.size) == 2 and min(self.size) >= 1),
            "window": self.window is None or self.window >= 1,
            "stride": self.window is None or 1 <= self.stride <= self.window,
            "window_batch": self.window_batch >= 1,
            "view": self.view is None or self.view >= 1,
            "whole_view": not self.whole_view or self.window is not None,
            "logit_scale": self.logit_scale > 0,
            "threshold": 0 <= self.threshold <= 1,
            "area_threshold": 0 <= self.area_threshold <= 1,
            "precision": self.precision in ("float32", "bfloat16", "float16"),
            "normalization": self.normalization in ("weights", "imagenet"),
            "refine_image": self.refine_image in ("resized", "original"),
            "memory": self.memory >= 2**20,
        }
        bad = [f"{name}={getattr(self, name)!r}" for name, right in checks.items() if not right]
        if bad:
            raise ValueError(
                f"protocol out of range: {', '.join(bad)}. Sizes and counts are positive, stride is at most the "
                "window, thresholds lie in [0, 1], precision is float32, bfloat16 or float16, normalization is weights "
                "or imagenet, memory is at least 1 MiB, and whole_view needs a window."
            )

    def _check_numbers(self):
        """Every number is one, and equal settings are written alike (40 and 40.0 have one fingerprint)."""
        wrong = []
        for name in ("logit_scale", "threshold", "area_threshold"):
            value = getattr(self, name)
            if isinstance(value, Real) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
            else:
                wrong.append(name)
        for name in ("short_side", "max_long_side", "window", "stride", "window_batch", "view", "memory"):
            value = getattr(self, name)
            optional = value is None and name in ("short_side", "window", "view")
            if not optional and (isinstance(value, bool) or not isinstance(value, Integral)):
                wrong.append(name)
        wrong += [] if isinstance(self.whole_view, bool) else ["whole_view"]
        if self.size is not None:
            whole = isinstance(self.size, tuple) and all(isinstance(side, Integral) for side in self.size)
            wrong += [] if whole else ["size"]
        if wrong:
            values = ", ".join(f"{name}={getattr(self, name)!r}" for name in wrong)
            raise ValueError(
                f"protocol settings of the wrong kind: {values}. Sides, strides and counts are whole numbers (size: "
                "two), scales and thresholds are numbers, whole_view is True or False."
            )

    @classmethod
    def from_dict(cls, settings: dict) -> "Protocol":
        """Build from keyword settings.

        Raises:
            ValueError: an unknown setting, with the nearest known one.
        """
        cls._check_names(settings)
        return cls(**settings)

    def but(self, **changes) -> "Protocol":
        """A copy with some settings changed; the same errors as ``from_dict``."""
        self._check_names(changes)
        return replace(self, **changes)

    @classmethod
    def _check_names(cls, settings: dict):
        known = sorted(f.name for f in fields(cls))
        for name in settings:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"unknown protocol setting {name!r}. {hint}Known: {', '.join(known)}.")

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """Short digest of all settings that can change a prediction, and are not what they are by default."""
        default = Protocol().to_dict()
        settings = {name: value for name, value in self.to_dict().items() if value != default[name]}
        return digest({k: v for k, v in settings.items() if k not in ("window_batch", "memory")})
