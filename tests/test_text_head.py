"""Words as the last layer of MMSegmentation's heads."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

import ovseg  # noqa: F401
from ovseg.segmentors import TextClassifier, set_classes
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower

WORDS = ["dog", "cat|kitten", "grass"]
HEADS = {
    "FCNHead": dict(in_channels=256, in_index=2),
    "FPNHead": dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3], feature_strides=[2, 4, 8, 16]),
    "UPerHead": dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3]),
    "SegformerHead": dict(in_channels=[256] * 4, in_index=[0, 1, 2, 3]),
}
WITHOUT = dict(in_channels=8, channels=8, num_layers=1, num_heads=1, embed_dims=8)


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("ovseg"):
        yield


def segmentor(head="FPNHead", words=WORDS):
    torch.manual_seed(0)
    return ROOT.build(
        dict(
            type="EncoderDecoder",
            _scope_="mmseg",
            backbone=dict(type="ovseg.CLIPBackbone", weights="tiny"),
            decode_head=dict(
                type="ovseg.OpenVocabHead",
                vocabulary=words,
                templates="name",
                head=dict(HEADS[head], type=head, channels=16, norm_cfg=dict(type="BN")),
            ),
            test_cfg=ConfigDict(mode="whole"),
        )
    )


def features():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 256, side, side, generator=generator) for side in (32, 16, 8, 4)]


def test_classifier_in_numpy():
    layer = TextClassifier(7, WORDS, templates="name")
    x = torch.randn(2, 7, 3, 4)
    text = TextEncoder(load_tower(), "name")(["dog", "cat", "kitten", "grass"]).numpy()
    weight, bias = layer.project.weight.detach().numpy()[:, :, 0, 0], layer.project.bias.detach().numpy()
    f = np.einsum("ec,bchw->behw", weight, x.numpy()) + bias[:, None, None]
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    words = np.einsum("behw,te->bthw", f, text) / 0.07
    expected = np.stack([words[:, 0], words[:, 1:3].max(1), words[:, 3]], 1)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-4)


def test_the_scale_ends_at_a_hundred():
    layer = TextClassifier(7, WORDS, templates="name")
    layer.log_scale.data.fill_(9.0)
    assert layer(torch.randn(1, 7, 8, 8)).abs().max() <= 100.001


@pytest.mark.parametrize("kind", HEADS)
def test_any_head_becomes_open(kind):
    cfg = dict(type="ovseg.OpenVocabHead", vocabulary=WORDS, templates="name")
    cfg["head"] = dict(HEADS[kind], type=kind, channels=16, norm_cfg=dict(type="BN"))
    head = ROOT.build(cfg)
    assert type(head).__name__ == kind and head.num_classes == head.out_channels == 3
    head.init_weights()
    logits = head.eval()(features())
    assert logits.shape[:2] == (2, 3)
    set_classes(head, ["grass", "owl", "dog", "bus", "sky"])
    again = head(features())
    assert again.shape[1] == 5 and head.num_classes == 5
    torch.testing.assert_close(again[:, [2, 0]], logits[:, [0, 2]])
    assert not any("text" in key or "query" in key for key in head.state_dict())


def test_a_segmentor_learns_and_then_takes_other_words():
    from mmseg.structures import SegDataSample

    model = segmentor()
    inputs = torch.randn(2, 3, 64, 64)
    samples = [SegDataSample() for _ in inputs]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 64, 64)))
    losses = model.train().loss(inputs, samples)
    losses["decode.loss_ce"].backward()
    assert model.decode_head.conv_seg.log_scale.grad is not None
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    before = model.eval().predict(inputs)[0].seg_logits.data
    set_classes(model, ["owl", "dog", "sky", "tree"])
    for mode in (ConfigDict(mode="whole"), ConfigDict(mode="slide", crop_size=(64, 64), stride=(32, 32))):
        model.test_cfg = mode
        after = model.predict(inputs)[0].seg_logits.data
        assert after.shape == (4, 64, 64)
        torch.testing.assert_close(after[1], before[0], atol=1e-4, rtol=1e-4)
    assert model.dataset_meta["classes"] == ("owl", "dog", "sky", "tree")


def test_a_checkpoint_does_not_hold_the_words():
    model, other = segmentor(), segmentor(words=["bus", "owl", "tree", "sky"])
    other.load_state_dict(model.state_dict())
    set_classes(other, WORDS)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other.eval()._forward(x), model.eval()._forward(x))


@pytest.mark.parametrize(
    "head, words",
    [
        (dict(HEADS["FCNHead"], type="FCNHead", channels=16, num_classes=5), "leave that out"),
        (dict(WITHOUT, type="SegmenterMaskTransformerHead"), "does not end in a layer conv_seg"),
    ],
)
def test_heads_that_do_not_fit(head, words):
    with pytest.raises(ValueError, match=words):
        ROOT.build(dict(type="ovseg.OpenVocabHead", vocabulary=WORDS, templates="name", head=head))


def test_a_class_without_words():
    from ovseg.text.vocabulary import Vocabulary

    with pytest.raises(ValueError, match="'background' has no words"):
        TextClassifier(7, Vocabulary.parse(["dog"]).with_background(0.3), templates="name")


def test_a_closed_head_says_so():
    with pytest.raises(ValueError, match="OpenVocabHead"):
        set_classes(torch.nn.Conv2d(3, 3, 1), WORDS)
