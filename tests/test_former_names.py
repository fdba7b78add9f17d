"""Files with the former spelling of keys and types: same values, same fingerprints."""

import json
import re

import numpy as np
import pytest
from safetensors import safe_open

from ovseg import Protocol, Result, Vocabulary
from ovseg.compat import former_names
from ovseg.compat.checkpoint import read_checkpoint_with_meta
from ovseg.engine.config import load_config, read_dump
from ovseg.predict.protocol import digest
from ovseg.registry import SCORERS
from ovseg.results.provenance import Provenance, Weights
from ovseg.towers import load_tower
from ovseg.towers.metadata import own_metadata
from tests.conftest import ROOT

TINY = ROOT / "ovseg/towers/tiny_clip.safetensors"


@pytest.mark.parametrize(
    "settings, fingerprint",
    [
        ({}, "44136fa355b3"),
        ({"normalization": "imagenet"}, "61250d8d5375"),
        (
            dict(short_side=512, window=None, normalization="imagenet", templates="maskclip_85", logit_scale=100),
            "940bca2c6d8f",
        ),
        (dict(normalization="imagenet", refine=("PAMR", {"type": "ClusterVote"}), threshold=0.1), "4e3dc577fe0e"),
        (dict(size=(96, 64), window=64, stride=32), "511d5cdc4d07"),
    ],
)
def test_fingerprints_stay(settings, fingerprint):
    """The constants were computed while the key was "normalisation"."""
    assert Protocol(**settings).fingerprint == fingerprint


def test_digests_of_configs_stay():
    config = dict(
        type="OpenVocabSegmentor",
        scorer=dict(type="ForegroundScore", background=True),
        protocol=dict(normalization="weights"),
        heads=[dict(scorer=dict(type="CenteredScore"))],
    )
    assert digest(config) == "40419005c367"


@pytest.mark.parametrize("name, digits", [("ade150", "633912984c1e"), ("voc21", "42238e316033")])
def test_vocabularies_keep_their_hashes(name, digits):
    assert Vocabulary.parse(name).hash == digits


def test_the_tables_name_what_exists():
    assert set(former_names.KEYS) & set(Protocol().to_dict()) == set()
    assert all(new in SCORERS and old not in SCORERS for old, new in former_names.TYPES.items())


def test_former_is_the_inverse_of_current():
    value = {"type": "ovseg.FoundScore", "a": [{"normalisation": "x"}, ("CentredScore", 1, None)], 3: {"licence": "l"}}
    renamed = former_names.current(value)
    assert renamed == {
        "type": "ovseg.ForegroundScore",
        "a": [{"normalization": "x"}, ("CentredScore", 1, None)],  # a type only under "type"
        3: {"license": "l"},
    }
    assert former_names.current(renamed) == renamed and former_names.former(renamed) == value


def test_one_key_in_two_spellings_is_refused():
    both = {"normalisation": "weights", "normalization": "imagenet"}
    for read in (former_names.current, former_names.current_keys):
        with pytest.raises(ValueError, match="'normalisation' and 'normalization' are two spellings of one key"):
            read({"protocol": both} if read is former_names.current else both)


def test_only_files_may_use_the_former_spelling():
    with pytest.raises(ValueError, match="unknown protocol setting 'normalisation'. Did you mean 'normalization'"):
        Protocol.from_dict({"normalisation": "imagenet"})


def test_a_card_with_former_keys():
    card = own_metadata(json.dumps({"card": {"protocol": {"normalisation": "imagenet", "window": 64}}}), "old")["card"]
    assert card["protocol"] == {"normalization": "imagenet", "window": 64}
    with safe_open(TINY, "pt") as file:  # the embedded model is such a file
        assert "normalisation" in json.loads(file.metadata()["ovseg"])["card"]["protocol"]
    assert load_tower().card.protocol["normalization"] == "weights"


def test_the_config_of_a_checkpoint_with_former_names():
    dump = (
        "model = dict(type='FViT', protocol=dict(normalisation='imagenet'), scorer=dict(type='FoundScore'))\n"
        "test_dataloader = dict(dataset=dict(pipeline=[]))\n"
    )
    assert read_dump(dump)["model"] == {
        "type": "FViT",
        "protocol": {"normalization": "imagenet"},
        "scorer": {"type": "ForegroundScore"},
    }


def test_a_checkpoint_that_was_trained_with_former_keys():
    checkpoint = ROOT / "configs/catseg/catseg_tiny_scenes.safetensors"
    dump = re.search(r"^model = dict\(.*?\)(?=\n\w)", read_checkpoint_with_meta(checkpoint)[1]["config"], re.M | re.S)[
        0
    ]
    assert "normalisation" in dump
    recorded, today = read_dump(dump)["model"], load_config(checkpoint.with_suffix(".py")).model.to_dict()
    assert recorded["protocol"] == today["protocol"] and recorded["protocol"]["normalization"] == "weights"
    assert Protocol(**recorded["protocol"]).fingerprint == Protocol(**today["protocol"]).fingerprint


def test_a_result_with_former_keys(tmp_path):
    protocol = Protocol(normalization="imagenet", window=64, stride=32)
    provenance = Provenance(
        method="clip_dinoiser",
        scorer={"name": "foreground", "background": True},
        weights=Weights("tiny", "0" * 12),
        protocol=protocol.to_dict(),
        fingerprint=protocol.fingerprint,
    )
    labels = np.array([[0, 1, 255], [1, 1, 0]])
    result = Result(labels=labels, vocabulary=Vocabulary.parse(["cat", "dog"]), scores=None, provenance=provenance)
    path = result.save(tmp_path, "new", "json")["json"]
    content = path.read_text()
    assert '"normalization": "imagenet"' in content and '"unlabeled"' in content
    old = tmp_path / "old.json"
    for new, former in (("normalization", "normalisation"), ("unlabeled", "unlabelled"), ("foreground", "found")):
        assert f'"{new}"' in content
        content = content.replace(f'"{new}"', f'"{former}"')
    old.write_text(json.dumps({key: value for key, value in json.loads(content).items() if key != "checksum"}))
    one, other = Result.load(path), Result.load(old)
    assert np.array_equal(one.labels, other.labels) and one.unlabeled == other.unlabeled == 255
    assert one.provenance == other.provenance and not one.provenance.differences(other.provenance)
    assert other.provenance.protocol["normalization"] == "imagenet"
    assert other.provenance.fingerprint == protocol.fingerprint


def test_a_vocabulary_with_a_licence(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('{"classes": ["cat"], "licence": "CC0"}')
    assert Vocabulary.parse(path) == Vocabulary.parse(["cat"])
