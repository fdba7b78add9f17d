"""Prediction settings: what is refused, and what the fingerprint tells apart."""

from dataclasses import fields

import pytest

from ovseg.predict.protocol import Protocol, digest


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"shortside": 3}, "Did you mean 'short_side'"),
        ({"strides": 3}, "Did you mean 'stride'"),
        ({"qqqq": 3}, "Known: area_threshold"),
        ({"stride": 300}, "stride=300"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"area_threshold": -0.1}, "area_threshold"),
        ({"short_side": 0}, "short_side=0"),
        ({"window": 0}, "window=0"),
        ({"logit_scale": 0}, "logit_scale"),
        ({"logit_scale": float("nan")}, "logit_scale"),
        ({"size": (3,)}, "size"),
        ({"memory": 5}, "1 MiB"),
        ({"normalization": "clip"}, "imagenet"),
        ({"short_side": "big"}, "short_side='big'"),
        ({"window": 22.5}, "window=22.5"),
        ({"size": 300}, "size=300"),
        ({"threshold": None}, "threshold=None"),
        ({"view": 0}, "view=0"),
        ({"whole_view": 1}, "whole_view=1"),
        ({"whole_view": True, "window": None}, "whole_view needs a window"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol.from_dict(settings)
    with pytest.raises(ValueError, match=message):
        Protocol().but(**settings)


def test_changes_are_judged_beside_the_other_settings():
    wide = Protocol(window=448, stride=224)
    assert wide.but(stride=300).stride == 300
    assert Protocol(window=64, stride=32).but(window=80).window == 80


OTHER = dict(
    short_side=300, max_long_side=1000, size=(64, 64), window=200, stride=100, templates="photo", logit_scale=50,
    threshold=0.1, area_threshold=0.1, normalization="imagenet", refine=("PAMR",),
    refine_image="original", view=64, whole_view=True, precision="bfloat16", range=(0, 4095), bands=(4, 3, 2),
)  # fmt: skip


def test_fingerprint():
    base = Protocol()
    prints = {base.fingerprint, *(base.but(**{name: value}).fingerprint for name, value in OTHER.items())}
    assert len(prints) == len(OTHER) + 1
    assert {f.name for f in fields(Protocol)} - OTHER.keys() == {"window_batch", "memory"}
    assert base.but(window_batch=3, memory=2**20).fingerprint == base.fingerprint
    assert base.but(logit_scale=40, threshold=0).fingerprint == base.fingerprint
    for equal in ({"size": [64, 64]}, {"refine": ["PAMR"]}, {"templates": ["a {}."]}, {"bands": [3]}):
        assert base.but(**equal) == base.but(**{k: tuple(v) for k, v in equal.items()})
        assert base.but(**equal).fingerprint == base.but(**{k: tuple(v) for k, v in equal.items()}).fingerprint
    one, two = (base.but(refine=(dict(type="PAMR", steps=n),)).fingerprint for n in (1, 2))
    assert one != two


def test_a_setting_added_later_leaves_old_fingerprints_alone():
    changed = dict(short_side=448, refine=("PAMR",))
    assert Protocol(**changed).fingerprint == digest(changed)
    assert Protocol().fingerprint == digest({})
