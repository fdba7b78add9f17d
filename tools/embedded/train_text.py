"""Distill the text tower: phrases go where MiniLM (with WordNet's hypernyms, see ``phrases.py``) puts them.

    L = mean(1 − cos(f, t)) + λ·KL( softmax(s·T Tᵀ) ‖ softmax(s·F Fᵀ) )

    python tools/embedded/train_text.py configs/embedded/embedded.json --data work_dirs/embedded/data \
        --work-dir work_dirs/embedded/text

The same command resumes, from ``last.pt`` or else from the compact state that the config names.  Batch i is a function
of (seed, i).
"""

import argparse
import json
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import state as states
import torch
import torch.nn.functional as F
from text import Phrases, TextTower
from torch.nn.attention import SDPBackend, sdpa_kernel


class Corpus:
    """Phrases with their targets (N, 384); ``batch(i)`` draws training phrases of similar length."""

    def __init__(self, folder: Path, context: int, batch: int, seed: int):
        rows = [line.split("\t") for line in (folder / "phrases.txt").read_text(encoding="utf-8").splitlines()]
        self.texts = [row[2] for row in rows]
        self.plain = np.array([row[1] == "1" for row in rows])
        self.train = np.flatnonzero([row[0] == "train" for row in rows])
        self.held = np.flatnonzero([row[0] == "val" for row in rows])
        self.targets = torch.from_numpy(np.load(folder / "targets.npy", mmap_mode="r+"))
        self.phrases, self.size, self.seed = Phrases(context), batch, seed

    @cached_property
    def row(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.texts)}

    def vectors(self, phrases: list[str]) -> torch.Tensor:
        """Targets (n, E) of phrases of the corpus, letter case aside; zeros for an empty phrase."""
        known = torch.tensor([self.row.get(phrase.lower(), -1) for phrase in phrases])
        missing = [p for p, i in zip(phrases, known.tolist(), strict=True) if i < 0 and p]
        if missing:
            raise ValueError(f"not among the phrases of the corpus: {', '.join(missing[:5])}")
        return torch.where(known[:, None] >= 0, self.targets[known].float(), 0)

    def batch(self, step: int) -> tuple[list[list[int]], torch.Tensor]:
        """Rows of ids and unit targets (B, E)."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(self.train, self.size, replace=False)
        rows = []
        for i in chosen:
            template = int(rng.integers(len(self.phrases.templates))) if self.plain[i] and rng.random() < 0.4 else None
            rows.append(self.phrases.row(self.texts[i], template))
        return rows, self.targets[torch.from_numpy(chosen)].float()


def encode(tower: TextTower, rows: list[list[int]], parts: int = 3) -> torch.Tensor:
    """Rows of ids → (B, E), encoded in a few portions of similar length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = []
    for part in np.array_split(order, parts):
        length = max(len(rows[i]) for i in part)
        out.append(tower(torch.tensor([rows[i] + [0] * (length - len(rows[i])) for i in part])))
    return torch.cat(out)[torch.tensor(order).argsort()]


def loss_of(features: torch.Tensor, targets: torch.Tensor, weight: float, scale: float = 30.0):
    features = F.normalize(features.float(), dim=-1)
    cosine = (features * targets).sum(-1).mean()
    there, here = (scale * x @ x.T for x in (targets, features))
    rows = F.kl_div(here.log_softmax(-1), there.log_softmax(-1), log_target=True, reduction="batchmean")
    return 1 - cosine + weight * rows, cosine


@torch.no_grad()
def validate(tower: TextTower, corpus: Corpus) -> float:
    rows = [corpus.phrases.row(corpus.texts[i]) for i in corpus.held]
    with torch.autocast("cpu", torch.bfloat16):
        features = encode(tower, rows)
    return float((F.normalize(features.float(), dim=-1) * corpus.targets[corpus.held].float()).sum(-1).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/embedded/text"))
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes after which to save and leave")
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    c = config["distill_text"]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    tower = TextTower(config["model"]["embed_dim"], config["model"]["text_cfg"], config["token_rank"])
    tower.token_embedding.start_from(torch.from_numpy(np.load(args.data / "tokens.npy")))
    corpus = Corpus(args.data, config["model"]["text_cfg"]["context_length"], c["batch"], config["seed"])
    matrices = [p for n, p in tower.named_parameters() if p.ndim == 2 and "resblocks" in n]
    others = [p for n, p in tower.named_parameters() if p.ndim != 2 or "resblocks" not in n]
    opts = states.optimizers([(matrices, c["lr_muon"], "muon"), (others, c["lr"], "adamw")], c["weight_decay"])
    last, start = args.work_dir / "last.pt", 0
    if (saved := states.load(last) or states.load_compact(args.config.parent / c["start"])) is not None:
        tower.load_state_dict(saved["model"] if "model" in saved else tower.state_dict() | saved["mean"])
        for opt, values in zip(opts, saved.get("optimizers", []), strict=False):
            opt.load_state_dict(values)
        start = saved["step"]
    log, began, kept = states.Log(args.work_dir / "log.jsonl"), time.time(), time.time()
    first = start
    for step in range(start, c["steps"]):
        rows, targets = corpus.batch(step)
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = group["base"] * states.rate(step, c["steps"]) * min(1.0, (step - first + 1) / 50)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            features = encode(tower, rows)
        loss, cosine = loss_of(features, targets, c["rows"])
        for opt in opts:
            opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for opt in opts:
            opt.step()
        log.add(loss=loss, cosine=cosine)
        done = step + 1
        leave = done == c["steps"] or time.time() - began > 60 * args.stop_after
        if done % c["log_every"] == 0 or leave:
            log.write(done, held_out=round(validate(tower, corpus), 4))
        if time.time() - kept > 300 or leave:
            kept = time.time()
            states.save(last, {"step": done, "model": tower.state_dict(), "optimizers": [o.state_dict() for o in opts]})
        if leave:
            break


if __name__ == "__main__":
    main()
