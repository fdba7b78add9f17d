"""The geometric ensemble of detector and frozen tower."""

import json

import numpy as np
import pytest
import torch

from ovseg.score import geometric_ensemble
from ovseg.testing.parity import main


def drawn(rows=7, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    p, q = rng.uniform(0, 1, (2, rows, classes)).astype(np.float32)
    return p, q, np.array([True, False, True, False, True])


def run(p, q, base, *shares):
    return geometric_ensemble(torch.tensor(p), torch.tensor(q), torch.tensor(base), *shares).numpy()


@pytest.mark.parametrize("alpha, beta", [(0.1, 0.8), (0.35, 0.65), (0.0, 1.0), (1.0, 0.0)])
def test_the_rule_in_numpy(alpha, beta):
    p, q, base = drawn()
    found = run(p, q, base, alpha, beta)
    for k, seen in enumerate(base):
        share = alpha if seen else beta
        np.testing.assert_allclose(found[:, k], p[:, k] ** (1 - share) * q[:, k] ** share, rtol=1e-5)


def test_shares_of_nothing_and_all_give_one_opinion_alone():
    p, q, base = drawn()
    p[0, 0] = q[1, 1] = 0.0
    assert np.array_equal(run(p, q, base, 0.0, 0.0), p) and np.array_equal(run(p, q, base, 1.0, 1.0), q)


def test_rows_do_not_sum_to_one_and_permuting_classes_permutes_scores():
    p, q, base = drawn()
    p, q = (each / each.sum(1, keepdims=True) for each in (p, q))
    found = run(p, q, base, 0.1, 0.8)
    assert np.abs(found.sum(1) - 1).max() > 0.1
    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(run(p[:, order], q[:, order], base[order], 0.1, 0.8), found[:, order])


def test_no_regions_and_what_does_not_fit():
    p, q, base = drawn()
    assert run(p[:0], q[:0], base, 0.1, 0.8).shape == (0, 5)
    for wrong in ((p, q[:, :4], base, 0.1, 0.8), (p, q, base[:4], 0.1, 0.8), (p, q, base, -0.1, 0.8)):
        with pytest.raises(ValueError, match="geometric_ensemble takes"):
            run(*wrong)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("left_out", [(), ("baron_kd_logits",), ("vlm_roi_embed",)])
def test_any_file_of_the_format(tmp_path, capsys, left_out):
    rng = np.random.default_rng(5)
    det, vlm, text = (rng.normal(size=(n, 6)).astype(np.float32) for n in (4, 4, 3))
    base = np.array([True, False, True])
    logits = rng.normal(size=(2, 4, 3)).astype(np.float32)
    meta = dict(key="det_score_ensemble", alpha=0.3, beta=0.6, det_temperature=20, vlm_temperature=8, baron_factor=0.55)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (det, vlm, text)]
    arrays = dict(
        det_embed=det, vlm_roi_embed=vlm, class_embed_with_bg=text, is_base_incl_bg=base,
        baron_det_logits=logits[0], baron_kd_logits=logits[1],
    )  # fmt: skip
    share = np.where(base, 0.3, 0.6)
    p, q = softmax(20 * unit[0] @ unit[2].T), softmax(8 * unit[1] @ unit[2].T)
    out = {"fvit_det_logits": 20 * unit[0] @ unit[2].T, "fvit_scores": p ** (1 - share) * q**share}
    share = np.where(base, 0.45, 0.55)
    for name, act in (("softmax", softmax), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))):
        out[f"baron_{name}"] = act(logits[0]) ** (1 - share) * act(logits[1]) ** share
    gone = {"baron_kd_logits": ("baron_softmax", "baron_sigmoid"), "vlm_roi_embed": ("fvit_scores",)}
    for name in left_out:
        arrays.pop(name)
        out = {key: value for key, value in out.items() if key not in gone[name]}
    path = tmp_path / "det_score_ensemble.npz"
    np.savez(path, meta=json.dumps(meta), **arrays, **{f"out/{k}": v.astype(np.float32) for k, v in out.items()})
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.count(" ok") == len(out)


def test_golden(goldens):
    path = goldens / "det_score_ensemble.npz"
    if not path.is_file():
        pytest.skip("no such golden file")
    assert main([str(path)]) == 0
