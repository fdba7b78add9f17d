"""State files that are whole or not there, learning rates, the log line: what every trainer here shares."""

import json
import math
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


def save(path: Path, state: dict):
    """Write tensors and numbers; a reader sees the old file or the new one."""
    part = path.with_suffix(".tmp")
    torch.save(state, part)
    os.replace(part, path)


def load(path: Path) -> dict | None:
    """The saved state, None where there is none."""
    return torch.load(path, weights_only=True) if path.exists() else None


def load_compact(path: Path) -> dict | None:
    """What ``compact.py`` wrote: ``step`` and ``mean``; None where there is no file."""
    if not path.exists():
        return None
    values = load_file(path)
    return {"step": int(values.pop("step")), "mean": {name: value.float() for name, value in values.items()}}


def rate(step: int, total: int, warmup: int = 100) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def optimizers(groups: list[tuple[list[nn.Parameter], float, str]], weight_decay: float) -> list[torch.optim.Optimizer]:
    """One optimizer for each (parameters, rate, ``muon`` or ``adamw``) that has parameters."""
    made = []
    for parameters, lr, kind in groups:
        if kind == "muon":
            made.append(torch.optim.Muon(parameters, lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        elif parameters:
            made.append(torch.optim.AdamW(parameters, lr, betas=(0.9, 0.98), weight_decay=weight_decay))
        for group in made[-1].param_groups:
            group["base"] = lr
    return made


class Log:
    """Running means, printed and appended to ``log.jsonl`` as one JSON line."""

    def __init__(self, path: Path):
        self.file = path.open("a")
        self.start, self.cpu = time.time(), time.process_time()
        self.sums, self.count = {}, 0

    def add(self, **values):
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def write(self, step: int, **values):
        line = {"step": step} | {name: round(value / max(1, self.count), 4) for name, value in self.sums.items()}
        line |= {"s_per_step": round((time.time() - self.start) / max(1, self.count), 3)}
        line |= {"cpu_s_per_step": round((time.process_time() - self.cpu) / max(1, self.count), 3)}
        line |= {"time": time.strftime("%H:%M:%S", time.gmtime())} | values
        print(json.dumps(line), flush=True)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.start, self.cpu, self.sums, self.count = time.time(), time.process_time(), {}, 0
