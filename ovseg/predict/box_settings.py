"""How regions of score maps become detections."""

from dataclasses import dataclass
from numbers import Real

from ovseg.regions.proposals import SHARES
from ovseg.text.background import read_number


@dataclass(frozen=True)
class BoxSettings:
    """How regions become detections; saved beside every result.

    shares           of a class' peak, at which its map is cut into regions
    object_shares    the same of the sum of all maps, which shows where anything is
    floor            probability below which a map holds nothing
    area             smallest region, in patches
    names            classes that a region is tried as
    detail           cells per patch and side of the enlarged score maps
    name_scale       τ of the softmax that names a region; that of the maps is the protocol's ``logit_scale``
    contrast         whether a region's surroundings count
    guided           how many of the best detections of a picture are named once more, by masked crops of them: better
                     names for one small forward pass each (GC-CLIP's guided cropping)
    nms              IoU above which the weaker of two boxes of a class goes, in (0, 1]
    inside           share of a box inside another of its class, above which the weaker of the two goes; 1 keeps both,
                     which average precision likes and people do not
    score_threshold  lowest score
    max_detections   of a picture
    background       words that compete without being detected; None: names of stuff (``text.stuff``), without those
                     that the classes name and those that the weights never learned

    Raises:
        ValueError: a setting out of its range.
    """

    shares: tuple[float, ...] = SHARES
    object_shares: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    floor: float = 0.02
    area: float = 8.0
    names: int = 3
    detail: int = 4
    name_scale: float = 100.0
    contrast: bool = True
    guided: int = 0
    nms: float = 0.6
    inside: float = 1.0
    score_threshold: float = 0.0
    max_detections: int = 100
    background: tuple[str, ...] | None = None

    def __post_init__(self):
        for name in ("shares", "object_shares", "background"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(value))
        words = self.background
        checks = {
            "shares": _shares(self.shares),
            "object_shares": _shares(self.object_shares),
            "names": isinstance(self.names, int) and self.names >= 1,
            "floor": _number(self.floor) and 0 <= self.floor <= 1,
            "area": _number(self.area) and self.area >= 0,
            "detail": isinstance(self.detail, int) and self.detail >= 1,
            "name_scale": _number(self.name_scale) and self.name_scale > 0,
            "contrast": isinstance(self.contrast, bool),
            "guided": isinstance(self.guided, int) and self.guided >= 0,
            "nms": _number(self.nms) and 0 < self.nms <= 1,
            "inside": _number(self.inside) and 0 < self.inside <= 1,
            "score_threshold": _number(self.score_threshold) and 0 <= self.score_threshold <= 1,
            "max_detections": isinstance(self.max_detections, int) and self.max_detections >= 1,
            "background": words is None or (isinstance(words, tuple) and all(_word(each) for each in words)),
        }
        bad = [f"{name}={getattr(self, name)!r}" for name, right in checks.items() if not right]
        if bad:
            raise ValueError(
                f"detection settings out of range: {', '.join(bad)}. Shares, nms and inside lie in (0, 1]; floor and "
                "score_threshold in [0, 1]; name_scale is above 0; detail, names and max_detections are whole numbers "
                "from 1 on, guided from 0; background is a list of words."
            )


def _shares(values) -> bool:
    return isinstance(values, tuple) and bool(values) and all(_number(each) and 0 < each <= 1 for each in values)


def _word(value) -> bool:
    return isinstance(value, str) and read_number(value) is None


def _number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
