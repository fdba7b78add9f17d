"""The global generators of random numbers: of Python, of NumPy, and of torch with its GPUs."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def random_states() -> dict:
    """The states of all generators as plain data, which ``torch.load(weights_only=True)`` reads."""
    state = np.random.get_state(legacy=False)
    generator = state["state"]
    return dict(
        python=random.getstate(),
        numpy=(
            state["bit_generator"],
            torch.from_numpy(generator["key"].astype(np.int64)),
            generator["pos"],
            state["has_gauss"],
            state["gauss"],
        ),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    )


def set_random_states(states: dict) -> None:
    """Put the generators into the states of ``random_states``; those of GPUs where there are as many as then."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def seeded(seed: int | Sequence[int]) -> Iterator[None]:
    """Inside, what is drawn on the CPU depends on the seed alone; afterwards the generators go on as if nothing was.

    Args:
        seed: of all three generators, or one for each: Python's, NumPy's, torch's.
    """
    seeds = [seed] * 3 if isinstance(seed, int) else seed
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # not those of the GPUs, which belong to the model
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
