"""One picture read by several methods: the tower remembers what it has computed and hands it out again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .base import Preprocess, TokenState, Tower


@dataclass(eq=False)
class Work:
    """A piece of work done once: how long it took, in whose turn it was done, and who has read what it gave."""

    seconds: float
    reader: str
    readers: set[str]


@dataclass(eq=False)
class _Step:
    """Tokens between two blocks.  ``after`` holds the next step, by whether that block's attention was written out:
    then its sums are rounded in another order, and so are all tokens behind it."""

    x: Tensor
    grid: tuple[int, int]
    index: int
    work: Work
    after: dict[bool, "_Step"] = field(default_factory=dict)
    taps: dict[tuple[bool, str], tuple[Tensor, Work]] = field(default_factory=dict)
    embedding: tuple[Tensor, Work] | None = None


class SharedTower(Tower):
    """A tower that runs each block once per picture, however many extractors read it.

    It gives bit for bit what ``tower`` gives, and everything it does not remember it leaves to ``tower``.  Remembered
    are, for the normalized images seen since ``clear()``, the tokens after every block that was run, the taps except
    ``attn`` (quadratic in the tokens: its block runs again), and the image embedding.  Images are recognized by their
    values; two ways of resizing the position table share their blocks where they give the same tokens.

    Tensors are handed out as they are, not copied: whoever changes one in place spoils it for the next reader.  Images
    that require gradients are not remembered.

    Args:
        tower: the tower that does the work; it is not changed.
        memory: bytes that may be remembered, beyond which work is done again instead.  A picture of B windows takes
            about 4·B·(3·H·W + (L + 1)·N·D) bytes with L blocks; call ``clear`` between pictures.

    Attributes:
        reader: whose turn it is, written into ``works``.
        works: what was done since ``clear()``.
        held: bytes remembered.
    """

    def __init__(self, tower: Tower, memory: int = 2**30):
        nn.Module.__init__(self)  # not Tower's: the modules stay those of the tower
        self.tower, self.memory = tower, memory
        self.training, self.prompt_length = tower.training, tower.prompt_length
        self.reader = ""
        self.clear()

    def clear(self) -> "SharedTower":
        """Forget all pictures. Returns itself."""
        self.works: list[Work] = []
        self.held = 0
        self._seen: list[tuple[Tensor, str, _Step]] = []
        self._steps: dict[int, _Step] = {}  # by the identity of their tokens, which they keep alive
        return self

    def __getstate__(self) -> dict:
        """Copies and pickles have seen no picture yet."""
        fresh = dict(works=[], held=0, _seen=[], _steps={})
        return vars(self) | fresh

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("tower"), name)

    # --- the contract ----------------------------------------------------------------------------------------------

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        if images.requires_grad:
            return self.tower.start(images, positions)
        for seen, mode, step in self._seen:
            if mode == positions and _same(seen, images):
                return self._hand_out(step)
        state, work = self._timed(lambda: self.tower.start(images, positions))
        twin = next((s for *_, s in self._seen if s.grid == state.grid and _same(s.x, state.x)), None)
        if not self._room_for(images, *(() if twin else (state.x,))):
            return state
        if twin is None:
            twin = self._keep(_Step(state.x, state.grid, state.index, work))
        self._seen.append((images.clone(), positions, twin))
        return self._hand_out(twin)

    def advance(self, state: TokenState, stop: int, taps: Sequence[str] = ()) -> TokenState:
        depth = len(self.tower.blocks)
        stop = stop % depth if stop < 0 else stop
        wanted = self.tower._wanted(taps)
        step = self._step_of(state.x)
        while step is not None and step.index == state.index < stop:
            names = {tap: part for tap, part in wanted.get(state.index, ())}
            step = self._next(step, state, names)
        return self.tower.advance(state, stop, taps) if state.index < stop else state

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        step = self._step_of(x)
        if step is None or step.grid != grid:
            return self.tower.embedding(x, grid)
        if step.embedding is None:
            step.embedding = self._timed(lambda: self.tower.embedding(x, grid))
        value, work = step.embedding
        work.readers.add(self.reader)
        return value

    def project(self, z: Tensor) -> Tensor:
        return self.tower.project(z)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        return self.tower.grid_of(height, width)

    def normalize(self, images: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        return self.tower.normalize(images, preprocess)

    @property
    def device(self) -> torch.device:
        return self.tower.device

    @property
    def dtype(self) -> torch.dtype:
        return self.tower.dtype

    @property
    def logit_scale(self) -> float:
        return self.tower.logit_scale

    # --- remembering -----------------------------------------------------------------------------------------------

    def _next(self, step: _Step, state: TokenState, names: dict[str, str]) -> _Step | None:
        """Take ``state`` through one block, from memory where possible; the step behind it, None if not remembered."""
        written_out = "attn" in names.values()
        after = step.after.get(written_out)
        remembered = {tap: step.taps.get((written_out, part)) for tap, part in names.items()}
        if after is not None and all(remembered.values()):
            state.taps.update({tap: value for tap, (value, _) in remembered.items()})
            for _, work in remembered.values():
                work.readers.add(self.reader)
        else:
            fresh = TokenState(step.x, step.grid, step.index)
            taps = [f"block.{step.index}.{part}" for part in names.values()]
            fresh, work = self._timed(lambda: self.tower.advance(fresh, step.index + 1, taps))
            values = {tap: fresh.taps[f"block.{step.index}.{part}"] for tap, part in names.items()}
            state.taps.update(values)
            keep = {(written_out, part): values[tap] for tap, part in names.items() if part != "attn"}
            keep = {key: value for key, value in keep.items() if key not in step.taps}
            if self._room_for(*keep.values()):
                step.taps |= {key: (value, work) for key, value in keep.items()}
            if after is None:
                if not self._room_for(fresh.x):
                    state.x, state.index = fresh.x, fresh.index
                    return None
                after = step.after[written_out] = self._keep(_Step(fresh.x, fresh.grid, fresh.index, work))
        after.work.readers.add(self.reader)
        state.x, state.index = after.x, after.index
        return after

    def _timed(self, run) -> tuple:
        begin = now(self.tower.device)
        value = run()
        work = Work(now(self.tower.device) - begin, self.reader, {self.reader})
        self.works.append(work)
        return value, work

    def _hand_out(self, step: _Step) -> TokenState:
        step.work.readers.add(self.reader)
        return TokenState(step.x, step.grid, step.index)

    def _keep(self, step: _Step) -> _Step:
        self._steps[id(step.x)] = step
        return step

    def _step_of(self, x: Tensor) -> _Step | None:
        return self._steps.get(id(x))

    def _room_for(self, *tensors: Tensor) -> bool:
        """Whether tensors may be remembered; if so they are counted."""
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        size = sum(storages.values())  # q, k and v are views of one product, and keep all of it alive
        fits = self.held + size <= self.memory
        self.held += size if fits else 0
        return fits


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
