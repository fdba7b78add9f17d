"""FG-CLIP's losses written out again in numpy, and the prompter in the way of CLOC."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import multiprocessing as mp

from ovseg.regions import Prompter
from ovseg.regions.fgclip import (
    HARD,
    V1,
    V2,
    caption_contrast,
    hard_negatives,
    hard_total,
    next_threshold,
    region_contrast,
    sigmoid_loss,
    weighted,
)
from ovseg.regions.prompter import grounding_loss, patch_boxes
from ovseg.testing.parity import compare

SCALE, BIAS = torch.tensor(2.1), torch.tensor(-4.0)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double(), dim=-1)


def cross_entropy(logits, targets):
    logits = logits - logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), targets]))


def test_contrast_of_regions():
    image, text = unit(7, 5), unit(7, 5, seed=1)
    logits = np.exp(2.1) * image.numpy() @ text.numpy().T
    expected = (cross_entropy(logits, np.arange(7)) + cross_entropy(logits.T, np.arange(7))) / 2
    np.testing.assert_allclose(region_contrast(image, text, SCALE), expected, rtol=1e-6)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(region_contrast(image[order], text[order], SCALE), region_contrast(image, text, SCALE))


def test_captions_of_other_regions():
    text = unit(14, 6)
    text[3] = F.normalize(text[5] + 0.05 * text[2], dim=0)  # says the same as another
    text[8] = text[9]
    similarity = text.numpy() @ text.numpy().T
    np.fill_diagonal(similarity, 0)
    similarity[similarity > 0.95] = 0
    largest = np.sort(similarity, 1)[:, -10:]
    np.testing.assert_allclose(caption_contrast(text), np.log(np.exp(largest).sum(1)).mean(), rtol=1e-6)
    np.testing.assert_allclose(caption_contrast(text[:1]), 0, atol=1e-9)  # fewer regions than ten are no error
    assert caption_contrast(text[:4]).isfinite()


@pytest.mark.parametrize("wrong", [1, 10])
def test_hard_captions(wrong):
    image, texts, tau = unit(6, 5), unit(6, wrong + 1, 5, seed=1), 0.4
    i, t, scale = image.numpy(), texts.numpy(), np.exp(2.1)
    scores = scale * np.einsum("re,rke->rk", i, t)
    pair = cross_entropy(scores, np.zeros(6, int))
    np.testing.assert_allclose(hard_negatives(image, texts, SCALE), pair, rtol=1e-6)
    captions = np.concatenate([t[:, 0], t[:, 1:].reshape(-1, 5)])
    rows = np.arange(6)
    nce = (cross_entropy(scale * i @ captions.T, rows) + cross_entropy(scale * t[:, 0] @ i.T, rows)) / 2
    gap = scores[:, :1] - scores[:, 1:]
    margin = np.maximum(tau - gap, 0).mean()
    found = hard_total(image, texts, SCALE, tau)
    expected = (0.6 * nce + 3 * pair + 0.4 * margin, nce, pair, margin, np.clip(gap.mean(), 0, 10))
    np.testing.assert_allclose([float(x) for x in found], expected, rtol=1e-5, atol=1e-7)
    assert sum(HARD.values()) == 4.0
    shuffled = torch.cat([texts[:, :1], texts[:, 1:].flip(1)], 1)
    torch.testing.assert_close(hard_total(image, shuffled, SCALE, tau), found)


def test_the_margin_stays_in_its_range_and_takes_no_gradient():
    assert next_threshold(torch.tensor([-3.0])) == 0 and next_threshold(torch.tensor([30.0])) == 10
    image = unit(4, 5).requires_grad_()
    found = hard_total(image, unit(4, 3, 5, seed=1), SCALE, torch.tensor(0.3))
    assert not found.threshold.requires_grad and found.threshold.ndim == 0
    found.total.backward()
    assert image.grad.abs().sum() > 0


def _gap(rank, address, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    torch.save(next_threshold(torch.tensor([1.0 + rank, 2.0])), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_share_the_margin(tmp_path):
    mp.start_processes(_gap, (str(tmp_path / "meet"), str(tmp_path)), nprocs=2, start_method="fork")
    assert [torch.load(tmp_path / f"{r}.pt", weights_only=True).item() for r in range(2)] == [1.75, 1.75]


def test_sigmoid_loss():
    image, text = unit(5, 4), unit(5, 4, seed=1)
    logits = np.exp(2.1) * image.numpy() @ text.numpy().T - 4
    signs = 2 * np.eye(5) - 1
    expected = np.log1p(np.exp(-signs * logits)).sum() / 5
    np.testing.assert_allclose(sigmoid_loss(image, text, SCALE, BIAS), expected, rtol=1e-6)


def test_weights():
    terms = {name: torch.tensor(float(i + 1)) for i, name in enumerate(V2)}
    torch.testing.assert_close(weighted(V2, **terms), torch.tensor(1 + 2 + 0.2 * 3 + 0.1 * 4 + 0.5 * 5))
    torch.testing.assert_close(weighted(V1, region=torch.tensor(2.0), hard=torch.tensor(3.0)), torch.tensor(1.7))
    for given in ({}, {"captions": 1}):
        with pytest.raises(ValueError, match="long, short, region, hard"):
            weighted(V1, **given)


def test_nothing_to_compare_is_zero_and_keeps_gradients():
    none, some = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 3, 5)
    hard = hard_total(none, some, SCALE, 0.3)
    for loss in (
        region_contrast(none, none, SCALE),
        caption_contrast(none),
        hard_negatives(none, some, SCALE),
        hard.total,
        sigmoid_loss(none, none, SCALE, BIAS),
        grounding_loss(none[:, :4], none[:, :4]),
    ):
        assert loss == 0 and loss.requires_grad
    np.testing.assert_allclose(hard.threshold, 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    "absent, needed",
    [
        ((), ()),
        (("hard_image_embeds",), ("hard", "cmr_threshold_out", "sum")),
        (("region_image_embeds",), ("region_contrastive", "siglip", "sum")),
        (("siglip_bias", "cmr_threshold_in"), ("siglip", "v2_hard", "cmr_threshold_out", "v2_weighted_sum")),
    ],
)
def test_parity_with_any_of_the_arrays(goldens, tmp_path, absent, needed):
    """``absent`` inputs are left out, and with them the expected arrays that need them."""
    arrays = {
        name: value
        for name, value in np.load(goldens / "det_fgclip_losses.npz").items()
        if name not in absent and not (name.startswith("out/") and any(part in name for part in needed))
    }
    np.savez(tmp_path / "part.npz", **arrays)
    lines = list(compare(tmp_path / "part.npz"))
    assert lines and all(ok for _, _, ok in lines), lines


# --- the prompter -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompter():
    torch.manual_seed(0)
    return Prompter(width=32, embed_dim=12, heads=4).eval()


def tokens(batch=2, grid=(3, 4), seed=0):
    return torch.randn(batch, grid[0] * grid[1], 32, generator=torch.Generator().manual_seed(seed))


BOXES = torch.tensor([[0.0, 0, 0.5, 0.5], [0.2, 0.3, 1, 1], [0, 0, 1, 1]])


def test_prompts_are_read_apart(prompter):
    x, prompts = tokens(), prompter.of_boxes(BOXES)
    found = prompter(x, (3, 4), [prompts, prompts[:1]])
    assert found.shape == (4, 12)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(prompter(x[:1], (3, 4), [prompts[order]]), found[:3][order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prompter(x[1:], (3, 4), [prompts[:1]]), found[3:], atol=1e-5, rtol=1e-5)
    texts = prompter.of_texts(unit(2, 12).float())
    mixed = prompter(x[:1], (3, 4), [torch.cat([prompts, texts])])
    torch.testing.assert_close(mixed[:3], found[:3], atol=1e-5, rtol=1e-5)
    assert prompter(x, (3, 4), [prompts[:0]] * 2).shape == (0, 12)


def test_what_counts_is_where_tokens_are_not_their_order(prompter):
    x, prompts = tokens(1), [prompter.of_boxes(BOXES)]
    moved = x.flip(1)
    assert (prompter(x, (3, 4), prompts) - prompter(moved, (3, 4), prompts)).abs().max() > 1e-4
    assert (prompter(x, (3, 4), prompts) - prompter(x, (4, 3), prompts)).abs().max() > 1e-4
    quarters = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    torch.testing.assert_close(patch_boxes((2, 2)), torch.tensor(quarters))


def test_it_learns_to_ground_and_to_name():
    torch.manual_seed(0)
    prompter, x, texts = Prompter(32, 12, heads=4), tokens(1), unit(3, 12).float()
    optimizer, losses = torch.optim.Adam(prompter.parameters(), lr=3e-3), []
    for _ in range(40):
        boxes = prompter.ground(x, (3, 4), [prompter.of_texts(texts)])
        regions = F.normalize(prompter(x, (3, 4), [prompter.of_boxes(BOXES)]), dim=-1)
        loss = grounding_loss(boxes, BOXES) + region_contrast(regions, texts, SCALE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_grounding_loss():
    boxes = torch.tensor([[0.0, 0, 0.5, 0.5], [0.2, 0.2, 0.6, 0.4]])
    found = torch.tensor([[0.25, 0, 0.75, 0.5], [0.2, 0.2, 0.6, 0.4]])
    giou = 1 / 3  # overlap 1/8, union 3/8, hull 3/8
    expected = (5 * 0.5 + 2 * (1 - giou) + 0) / 2
    torch.testing.assert_close(grounding_loss(found, boxes), torch.tensor(expected))


def test_tokens_on_another_grid(prompter):
    with pytest.raises(ValueError, match="patches alone"):
        prompter(tokens(1), (3, 5), [prompter.of_boxes(BOXES)])
    with pytest.raises(ValueError, match="patches alone"):
        prompter(tokens(2), (3, 4), [prompter.of_boxes(BOXES)])
