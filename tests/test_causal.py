"""Prompts encoded up to their end token have the embeddings of the full context."""

import open_clip
import pytest
import torch

from ovseg.text.causal import encode_prompts, is_causal
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower

PROMPTS = ["cat", "a photo of a very old wooden chair.", "x", "a bad photo of many elephants in the grass", "the sea"]


def toy(custom: bool = False, **text):
    config = dict(context_length=24, vocab_size=49408, width=32, heads=2, layers=2) | text
    vision = dict(layers=1, width=32, head_width=16, patch_size=8, image_size=16)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(16, vision_cfg=vision, text_cfg=config).eval()


def tokens(context):
    return open_clip.SimpleTokenizer(context_length=context)(PROMPTS)


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_equal_to_the_full_context(custom, batch):
    clip = toy(custom)
    assert is_causal(clip)
    with torch.inference_mode():
        expected = clip.encode_text(tokens(24))
        assert torch.allclose(encode_prompts(clip, tokens(24), batch), expected, atol=1e-5)


def test_the_embedded_model():
    clip = load_tower(None).clip
    with torch.inference_mode():
        expected = clip.encode_text(tokens(clip.context_length))
        assert torch.allclose(encode_prompts(clip, tokens(clip.context_length)), expected, atol=1e-5)


@pytest.mark.parametrize("text", [dict(no_causal_mask=True), dict(embed_cls=True), dict(pool_type="last")])
def test_other_towers_read_everything(text):
    clip = toy(custom=True, **text)
    assert not is_causal(clip)
    with torch.inference_mode():
        assert torch.allclose(encode_prompts(clip, tokens(24)), clip.encode_text(tokens(24)), atol=1e-6)


def test_nothing_behind_the_end_is_read():
    clip, changed = toy(), tokens(24)
    ends = changed.argmax(1)
    for row, end in zip(changed, ends, strict=True):
        row[end + 1 :] = 5
    with torch.inference_mode():
        assert torch.equal(encode_prompts(clip, changed), encode_prompts(clip, tokens(24)))


def test_gradients_reach_the_tower():
    tower = load_tower(None)
    tower.clip.token_embedding.weight.requires_grad_(True)
    TextEncoder(tower, "name").encode(["cat", "dog"]).sum().backward()
    assert tower.clip.token_embedding.weight.grad.abs().sum() > 0
