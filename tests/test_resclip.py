"""ResCLIP: its attention against numpy, its feedback against loops over pairs of patches."""

import numpy as np
import pytest
import torch

from ovseg.dense import NACLIP, ResCLIP
from ovseg.dense.resclip import semantic_feedback
from ovseg.score import CosineScore, FeedbackScore

from .test_dense import gaussian, images, numpy_last_block, softmax


def connected(classes, a, b):
    """Whether all patches that the straight line from a to b passes have one class."""
    steps = max(*classes.shape, 2)
    for t in np.linspace(0, 1, steps, dtype=np.float32):
        y, x = (
            int(np.floor(np.float32(p) + np.float32(q - p) * t + np.float32(0.5))) for p, q in zip(a, b, strict=True)
        )
        if classes[y, x] != classes[a]:
            return False
    return True


def feedback_by_loops(classes, sigma=5.0, kernel=31):
    h, w = classes.shape
    places = [(i, j) for i in range(h) for j in range(w)]
    most = max(max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a in places for b in places)
    pairs = np.zeros((h * w, h * w))
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            if classes[a] == classes[b]:
                distance = max(abs(a[0] - b[0]), abs(a[1] - b[1]))
                pairs[i, j] = 1 if connected(classes, a, b) else np.exp(-distance / max(1, most))
    x = np.arange(kernel) - kernel // 2
    g = np.exp(-(x**2) / (2 * sigma**2))
    rows = np.array([np.convolve(np.pad(row, kernel // 2), g / g.sum(), "valid") for row in pairs])
    rows /= rows.sum(-1, keepdims=True)
    return rows / rows.max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 6)])
def test_semantic_feedback(shape):
    classes = np.random.default_rng(1).integers(0, 2, shape)
    ours = semantic_feedback(torch.from_numpy(classes)).numpy()
    np.testing.assert_allclose(ours, feedback_by_loops(classes), atol=1e-5)


def test_attention_with_and_without_feedback(vit):
    x, dense = images((48, 80)), ResCLIP(residual=(2.0, 0.3), feedback=(2.2, 0.7))
    assert list(dense.middle(12)) == [5, 6, 7, 8] and list(dense.middle(3)) == [1]
    state = vit.advance(vit.start(x), 2, ["block.1.attn"])
    across = state.taps["block.1.attn"][0].numpy()
    out = dense(vit, x)
    sem = torch.rand(1, 15, 15)
    padded = np.pad(sem[0].numpy(), ((1, 0), (1, 0)))

    def weights(feedback):
        def of(q, k, v):
            m = k @ k.transpose(0, 2, 1) / 8
            m = 2.2 * (0.3 * m + 0.7 * padded) if feedback else m
            return 2.0 * (0.7 * softmax(m + gaussian(state.grid, 5.0)) + 0.3 * across)

        return of

    for features, feedback in ((out.features, False), (out.reread(sem, slice(None)), True)):
        expected = numpy_last_block(vit, state.x[0].numpy(), state.grid, weights(feedback), False, False)
        np.testing.assert_allclose(features[0].numpy(), expected, atol=5e-5, rtol=1e-3)


def test_no_residual_attention_is_the_base(vit):
    x = images((48, 80))
    plain = ResCLIP(residual=(1.0, 0.0))(vit, x).features
    torch.testing.assert_close(plain, NACLIP()(vit, x).features, atol=1e-5, rtol=1e-4)


def test_feedback_score(vit):
    text = torch.nn.functional.normalize(torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), dim=1)
    out = ResCLIP()(vit, images((48, 80), 2))
    scores = FeedbackScore()(out, text)
    assert scores.shape == (2, 4, 3, 5) and not torch.equal(scores, CosineScore()(out, text))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(FeedbackScore()(out, text[order]), scores[:, order], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="resclip"):
        FeedbackScore()(NACLIP()(vit, images((48, 80))), text)
    with pytest.raises(ValueError, match="base"):
        ResCLIP(base="maskclip")
