"""Training data whose every draw is a function of the seed and its number: whatever the processes, workers or breaks.

    train_dataloader = dict(
        batch_size=4,
        num_workers=2,
        sampler=dict(type="SeededSampler"),
        dataset=dict(type="SeededDataset", dataset=dict(type="COCOMini", split="train", pipeline=[…])),
    )

Draw n is image π_e(n mod N) of pass e = n div N, π_e a permutation of the seed, augmented by random numbers of
(seed, n).  With W processes, process r takes the draws r, r + W, r + 2W, …: two processes see in one step what one sees
in a step of twice the batch.  A run that begins at draw n continues exactly where another stopped.
"""

from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATASETS as MM_DATASETS

from ovseg.registry import DATA_SAMPLERS, DATASETS
from ovseg.rng import seeded


@DATASETS.register_module()
class SeededDataset:
    """A dataset whose transforms draw their random numbers from (seed, number of the draw).

    The random states of the process are left as they were, so that the model's own are not disturbed.

    Args:
        dataset: dataset, or its config.
        seed: given by the sampler unless set.
    """

    def __init__(self, dataset, seed: int | None = None):
        self.dataset = MM_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.seed = seed

    @property
    def metainfo(self) -> dict:
        return self.dataset.metainfo

    def full_init(self):
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: tuple[int, int]) -> dict:
        """The sample of (number of the draw, index in the dataset)."""
        number, index = draw
        with seeded(np.random.SeedSequence([self.seed or 0, number]).generate_state(3).tolist()):
            return self.dataset[index]


@DATA_SAMPLERS.register_module()
class SeededSampler:
    """Endless draws (number, index) for this process.

    Args:
        dataset: a ``SeededDataset``.
        shuffle: permute every pass; otherwise indices in order.
        seed: of the permutations and the transforms; one for all processes if None.

    Raises:
        ValueError: another dataset, or an empty one.
    """

    def __init__(self, dataset, shuffle: bool = True, seed: int | None = None):
        if not isinstance(dataset, SeededDataset) or not len(dataset):
            raise ValueError(
                "SeededSampler draws from a SeededDataset that is not empty: write dataset=dict(type='SeededDataset', "
                f"dataset=dict(…)); got {type(dataset).__name__} of {len(dataset)}."
            )
        self.dataset, self.shuffle = dataset, shuffle
        self.seed = sync_random_seed() if seed is None else seed
        dataset.seed = self.seed if dataset.seed is None else dataset.seed
        self.rank, self.world_size = get_dist_info()
        self._done = 0

    def skip(self, samples: int):
        """Leave out that many draws of this process; takes effect at the next ``iter`` (MMEngine's contract)."""
        self._done += samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        size, current, order = len(self.dataset), None, None
        number = self.rank + self._done * self.world_size
        while True:
            turn, place = divmod(number, size)
            if turn != current:
                current, order = turn, self._order(turn, size)
            yield number, int(order[place])
            number += self.world_size

    def _order(self, turn: int, size: int) -> np.ndarray:
        return np.random.default_rng([self.seed, turn]).permutation(size) if self.shuffle else np.arange(size)

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int):
        """Nothing: passes are counted by the draws."""
