"""The authors' own outputs, through the command users run."""

import numpy as np
import pytest

from ovseg.testing.parity import compare, errors, main

FILES = (
    "vanilla maskclip maskclip_rn sclip clearclip naclip pamr gem cliptrase proxyclip clip_dinoiser clip_prs "
    "adapting_clip_vit det_box_search trained_clipdinoiser trained_pixelclip "
    "det_regionclip_region det_regionclip_pretrain_loss det_fgclip_losses det_score_ensemble".split()
)


@pytest.mark.parametrize("name", FILES)
def test_parity(name, goldens):
    lines = list(compare(goldens / f"{name}.npz"))
    assert lines and all(ok for _, _, ok in lines), [line for line in lines if not line[2]]


def test_command_line(goldens, capsys, tmp_path):
    assert main([str(goldens / "pamr.npz")]) == 0
    assert capsys.readouterr().out.startswith("pamr.npz refined ")
    assert main([str(tmp_path / "missing.npz")]) == 1


def test_a_wrong_array_and_an_unknown_array_fail(goldens, tmp_path):
    arrays = dict(np.load(goldens / "pamr.npz"))
    arrays["refined"] = arrays["refined"] + 1e-3
    arrays["invented"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "changed.npz", **arrays)
    verdicts = {name: ok for name, _, ok in compare(tmp_path / "changed.npz")}
    assert verdicts == {"refined": False, "invented": False}


@pytest.mark.parametrize(
    "ours, expected, ok",
    [
        (np.array([1.0, 1.00005]), np.array([1.0, 1.0]), True),
        (np.array([1.0, 1.0005]), np.array([1.0, 1.0]), False),
        (np.array([1000.0, 0.005]), np.array([1000.0, 0.0]), True),
        (np.array([1, 2, 3]), np.array([1, 2, 4]), False),
        (np.zeros((2, 2)), np.zeros(4), False),
    ],
)
def test_tolerance(ours, expected, ok):
    assert errors(ours, expected)[2] is ok
