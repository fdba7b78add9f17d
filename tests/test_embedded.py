"""The embedded model's tools: dilation, folding, phases, random cuts and quantization, by their properties."""

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

TOOLS = Path(__file__).resolve().parents[1] / "tools" / "embedded"


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(TOOLS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def trunk(**kwargs):
    """EfficientNet-Lite0 with random weights and batch statistics."""
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0, **kwargs)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.3)
    return model.eval()


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_is_timms(stride):
    from cnn import dilate

    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        expected = trunk(output_stride=stride).forward_features(images)
        ours = dilate(trunk(), stride).forward_features(images)
    torch.testing.assert_close(ours, expected)


def test_mean_of_dense_features_is_the_embedding():
    from cnn import DenseCNN
    from open_clip.timm_model import TimmModel

    torch.manual_seed(0)
    visual = TimmModel("tf_efficientnet_lite0", 16, pool="avg", proj="linear").eval()
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = visual(images)
        embedding, features = DenseCNN(visual, 32)(images)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (2, 16, 3, 2)


@pytest.mark.parametrize("stride", [16, 32])
def test_folded_network_is_the_network(monkeypatch, stride):
    import folded

    monkeypatch.setattr(folded, "DTYPE", torch.float32)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        expected = trunk(output_stride=stride).forward_features(images)
        network = folded.FoldedTrunk(trunk())
        ours = network(network.fixed(images), stride).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)
    for name, value in network.unfold().items():
        torch.testing.assert_close(value, trunk().state_dict()[name], rtol=1e-4, atol=1e-5)


def test_phases_come_together():
    from folded import merge, split

    x = torch.randn(2, 6, 8, 3)
    assert torch.equal(merge(split(x)), x)


def test_quantized_codes_are_near():
    from export import quantize
    from text import LowRankTable

    codes = LowRankTable(50, 8, 16).codes.weight.detach()
    whole, scale = quantize(codes)
    error = (whole.float() * scale.float()[:, None] - codes).abs()
    assert whole.dtype == torch.int8 and (error <= 0.51 * scale.float()[:, None] + 1e-3).all()


def test_candidates_hold_what_is_there():
    from measure import candidates

    label = np.array([[3, 3, 255], [7, 90, 90]])
    first, again = (candidates(label, 133, 5) for _ in range(2))
    assert np.array_equal(first, again) and len(first) == len(set(first.tolist())) == 20
    assert {3, 7, 90} <= set(first.tolist()) and first.max() < 133


def test_text_tower_reads_short_batches_as_long_ones():
    from text import Phrases, TextTower, pad

    torch.manual_seed(0)
    config = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    tower, phrases = TextTower(16, config, 4).eval(), Phrases(32)
    rows = [phrases.row("a red kite"), phrases.row("dog", 3)]
    long = pad([*rows, list(range(1, 33))])[:2]
    with torch.no_grad():
        torch.testing.assert_close(tower(pad(rows)), tower(long), rtol=1e-4, atol=1e-5)
