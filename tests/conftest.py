import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)  # more threads only wait for each other on shared cores


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests neither read nor leave embeddings in the user's cache, and never ask the network."""
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("OVSEG_OFFLINE", "1")


def shared_folder(variable: str, default: str) -> Path:
    """A folder beside the project that tests may use, or a skip that says which variable names it."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to the folder")
    return folder


@pytest.fixture(scope="session")
def goldens() -> Path:
    return shared_folder("OVSEG_GOLDENS", "goldens")


@pytest.fixture(scope="session")
def data() -> Path:
    return shared_folder("OVSEG_DATA", "data")


@pytest.fixture(scope="session")
def vit():
    from ovseg.testing.toys import toy_tower

    return toy_tower("vit")


@pytest.fixture(scope="session")
def resnet():
    from ovseg.testing.toys import toy_tower

    return toy_tower("resnet")


@pytest.fixture
def picture() -> np.ndarray:
    """A seeded (90, 130, 3) uint8 RGB picture with structure at several scales."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (9, 13, 3)).repeat(10, 0).repeat(10, 1)
    return np.clip(coarse + rng.normal(0, 12, (90, 130, 3)), 0, 255).astype(np.uint8)
