"""Families of towers: what they provide, what methods require, and what makes two towers the same."""

from dataclasses import replace

import pytest
import torch

from ovseg.dense.base import DenseExtractor
from ovseg.registry import DENSE, TOWERS, names
from ovseg.testing.toys import toy_clip, toy_tower
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.towers import CAPABILITIES, Preprocess, TowerCard, load_tower, missing, require
from ovseg.towers.build import make_tower
from ovseg.towers.family import families
from ovseg.towers.formats import canonical
from ovseg.towers.identity import identity

from .test_eva import theirs, toy_eva

MAKE = {"vit": toy_tower, "eva": toy_eva, "resnet": lambda **options: toy_tower("resnet", **options)}


@pytest.mark.parametrize("name", MAKE)
def test_weights_and_modules_are_of_one_family(name):
    tower = MAKE[name]()
    state, _ = canonical(tower.clip.state_dict())
    assert [family.family for family in families() if family.matches(state, {})] == [name] == [tower.family]
    assert [family.family for family in families() if family.opens(tower.visual)] == [name]
    assert TOWERS.get(name) is type(tower)
    assert type(tower.around(tower.visual)) is type(tower) and tower.around(tower.visual).card is tower.card


@pytest.mark.parametrize("name", MAKE)
def test_the_recorded_config_builds_the_tower_again(name):
    tower = MAKE[name]()
    state, _ = canonical(tower.clip.state_dict())
    config = type(tower).vision_config(state, tower.recorded_config())
    visual = type(tower).from_state(state, config, False)
    visual.load_state_dict(tower.visual.state_dict())
    x = torch.randn(1, 3, *tower.image_size)
    torch.testing.assert_close(type(tower)(visual.eval(), None, tower.preprocess, tower.card)(x)[0], tower(x)[0])


def test_the_authors_names_are_the_familys():
    state, recorded = canonical(theirs(toy_eva()))
    assert [family.family for family in families() if family.matches(state, recorded)] == ["eva"]
    assert recorded == {"eva": {"heads": 3, "reference": 6}}


@pytest.mark.parametrize("name", MAKE)
def test_what_a_tower_provides_it_has(name):
    tower = MAKE[name]()
    assert tower.provides <= CAPABILITIES.keys() and "square_grid" in tower.provides
    block = tower.blocks[-1]
    assert ("attention_blocks" in tower.provides) == block.has_residual
    for capability, method in (("stages", "stages"), ("attention_pool", "everywhere"), ("patch_stem", "embed")):
        assert (capability in tower.provides) == hasattr(tower, method)
    if "class_pooling" in tower.provides:
        embedding, state = tower(torch.randn(1, 3, 64, 96))
        torch.testing.assert_close(embedding, tower.project(state.x[:, :1])[:, 0], atol=1e-5, rtol=1e-4)


def test_a_pooled_vit_has_no_class_pooling():
    clip = toy_clip()
    clip.visual.pool_type = "avg"
    assert "class_pooling" not in make_tower(clip.visual, clip, Preprocess(), TowerCard()).provides


@pytest.mark.parametrize("name", names(DENSE))
def test_methods_require_capabilities_alone(name):
    extractor = DENSE.get(name)
    assert set(extractor.requires) <= CAPABILITIES.keys()
    assert not hasattr(extractor, "towers") or not issubclass(extractor, DenseExtractor)


def test_a_misfit_is_one_sentence():
    tower = toy_tower("resnet")
    assert missing(tower, ("class_token", "attention_blocks", "stages")) == ("attention_blocks", "class_token")
    require(tower, ("stages", "attention_pool"), "nobody")
    with pytest.raises(
        ValueError, match=r"^GEM needs attention blocks .* toy resnet 0 \(resnet\) .* ViT-B-16/openai\.$"
    ):
        require(tower, ("attention_blocks",), "GEM")
    with pytest.raises(ValueError, match="RN50/openai"):
        require(toy_tower(), ("stages",), "RegionCLIP")
    with pytest.raises(KeyError, match="wings"):
        missing(tower, ("wings",))


# --- identity ---------------------------------------------------------------------------------------------------------


def changed(what):
    """A tower with the tensors of ``toy_tower`` that computes something else."""
    tower = toy_tower()
    visual, clip = tower.visual, tower.clip
    if what == "activation":
        return toy_tower(quick_gelu=True)
    if what == "text activation":
        for block in clip.transformer.resblocks:
            block.mlp.gelu = torch.nn.ReLU()
    elif what == "heads":
        visual.transformer.resblocks[0].attn.num_heads = 4
    elif what == "epsilon":
        visual.ln_post.eps = 1e-3
    elif what == "pooling":
        visual.pool_type = "avg"
    elif what == "text pooling":
        clip.text_pool_type = "last"
    elif what == "context":
        clip.context_length = 76
    elif what == "causality":
        clip.attn_mask = None
    elif what == "grid":
        visual.grid_size, visual.image_size = (2, 8), (32, 128)
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5)) if what == "normalization" else tower.preprocess
    return make_tower(visual, clip, preprocess, replace(tower.card, identity=""))


CHANGES = [
    "activation", "text activation", "heads", "epsilon", "pooling", "text pooling", "context", "causality", "grid",
    "normalization",
]  # fmt: skip


def test_equal_towers_have_one_identity():
    assert toy_tower().card.identity == toy_tower().card.identity == identity(toy_tower()) != ""
    assert changed("nothing").card.identity == toy_tower().card.identity
    assert toy_tower(seed=1).card.identity != toy_tower().card.identity
    unknown = toy_clip()
    assert make_tower(unknown.visual, unknown, Preprocess(), TowerCard("no hash")).card.identity == ""


@pytest.mark.parametrize("what", CHANGES)
def test_everything_that_changes_an_embedding_changes_the_identity(what):
    assert changed(what).card.hash == toy_tower().card.hash
    assert changed(what).card.identity != toy_tower().card.identity


def test_rotations_are_part_of_the_identity():
    plain, turned = toy_eva(), toy_eva(ref_feat_shape=7)
    assert plain.card.hash == turned.card.hash and plain.card.identity != turned.card.identity


def test_the_hash_of_weights_stays_what_it_was():
    assert load_tower().card.hash == "118dbe2de578"
    assert load_tower(quick_gelu=True).card.hash == load_tower().card.hash
    assert load_tower(quick_gelu=True).card.identity != load_tower().card.identity


def test_cached_words_are_those_of_the_activation(tmp_path):
    for quick_gelu in (False, True):
        tower = toy_tower(quick_gelu=quick_gelu)
        cached = TextEncoder(tower, "name", EmbeddingCache(tmp_path))(["cat"])
        torch.testing.assert_close(cached, TextEncoder(tower, "name")(["cat"]))
