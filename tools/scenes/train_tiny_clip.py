"""Train the embedded tiny CLIP on composed scenes: image-caption contrastive learning and nothing else.

    python tools/scenes/train_tiny_clip.py configs/tiny_clip/tiny_clip_scenes.json --work-dir work_dirs/tiny_clip

Call it again to resume after an interruption: batch i is a function of (seed, i), so the run goes on with the data it
would have seen.  ``log.jsonl`` in the work directory holds the learning curve; ``tools/scenes/export_tiny_clip.py``
turns the last checkpoint into the file that ships with the package.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from ovseg.datasets.scenes import SceneComposer, caption, object_names, spellings
from ovseg.datasets.scenes.captions import SHORT
from ovseg.text.templates import IMAGENET_80

DRAWN = ("size", "objects", "extent", "augment", "inside", "restyle")  # the settings of a stage that the composer takes
TOKENIZER = SimpleTokenizer()
MEAN, STD = (
    torch.tensor(v).view(3, 1, 1) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
)


def token_ids() -> list[int]:
    """The ids of open_clip's BPE that captions can contain, in increasing order (end-of-text stays the largest)."""
    words = [name for names in spellings() for name in names]
    texts = [
        f"{prefix} {name}{suffix}" for name in words for prefix in ("", "a", "an", "the") for suffix in ("", ",", ".")
    ]
    texts += [t.format(name) for t in (*SHORT, *IMAGENET_80) for name in ("dog", "the dog and a cat, an apple with")]
    texts += ["on with in front of and, an a the"]
    used = {i for text in texts for i in TOKENIZER.encode(text)}
    return sorted(used | {TOKENIZER.sot_token_id, TOKENIZER.eot_token_id})


class CaptionedBatches(Dataset):
    """Item i is batch i: uint8 images (B, 3, S, S) and remapped token ids (B, L)."""

    def __init__(self, stages, ids, context, seed, styles="seen"):
        self.stages, self.context, self.seed = stages, context, seed
        self.row = {token: row for row, token in enumerate(ids)}
        self.composers = [SceneComposer(styles=styles, split="train", **{k: s[k] for k in DRAWN}) for s in stages]
        self.starts = np.cumsum([0] + [s["steps"] for s in stages])

    def __len__(self):
        return int(self.starts[-1])

    def stage(self, step: int) -> int:
        """The number of the stage that a step belongs to."""
        return int(np.searchsorted(self.starts, step, side="right") - 1)

    def tokens(self, text: str) -> torch.Tensor:
        """Start, the text cut to the context length, end, zeros: (L,) remapped ids."""
        ids = [TOKENIZER.sot_token_id, *TOKENIZER.encode(text)[: self.context - 2], TOKENIZER.eot_token_id]
        return F.pad(torch.tensor([self.row[i] for i in ids]), (0, self.context - len(ids)))

    def __getitem__(self, step):
        number = self.stage(step)
        stage, composer = self.stages[number], self.composers[number]
        rng = np.random.default_rng([self.seed, step])
        kinds = rng.choice(len(composer.stuff), 4, replace=False) if rng.random() < 0.5 else None
        deck, images, tokens = [], [], []
        for i in range(stage["batch"]):
            count = rng.integers(stage["objects"][0], stage["objects"][1] + 1)
            if len(deck) < count:
                deck += rng.permutation(len(object_names())).tolist()
            classes = list(dict.fromkeys(deck[:count]))
            del deck[:count]
            scene = composer([self.seed, step, i], classes, kinds)
            images.append(scene.image)
            tokens.append(self.tokens(caption(rng, scene.visible())))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.stack(tokens)


def batches(data: CaptionedBatches, start: int, workers: int) -> DataLoader:
    """The batches from number ``start`` on, in their order."""
    ahead = 4 if workers else None
    sampler = range(start, len(data))
    return DataLoader(data, batch_size=None, sampler=sampler, num_workers=workers, prefetch_factor=ahead)


def normalize(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - MEAN) / STD


def resize_positions(model: CLIP, size: int):
    """Set the tower up for square images of ``size`` px, interpolating the position table (1 + g*g, D)."""
    visual = model.visual
    grid = size // visual.patch_size[0]
    table = visual.positional_embedding.data
    old = round((table.shape[0] - 1) ** 0.5)
    if grid != old:
        patch = table[1:].T.reshape(1, -1, old, old)
        patch = F.interpolate(patch, (grid, grid), mode="bicubic", align_corners=False)
        visual.positional_embedding = torch.nn.Parameter(torch.cat([table[:1], patch.flatten(2)[0].T]))
    visual.image_size, visual.grid_size = (size, size), (grid, grid)


def optimizers(model: CLIP, config: dict):
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "resblocks" in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=config["lr_muon"], weight_decay=config["weight_decay"], adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=config["lr"], weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def rate(step: int, data: CaptionedBatches, config: dict) -> float:
    """Learning-rate factor: linear within each stage from ``rate[0]`` to ``rate[1]``, with a warm-up at its start."""
    number = data.stage(step)
    stage, done = data.stages[number], step - data.starts[number]
    first, last = stage["rate"]
    warm = min(1.0, (done + 1) / (config["warmup"] if number == 0 else 50))
    return float(warm * (first + (last - first) * done / stage["steps"]))


@torch.no_grad()
def validate(model: CLIP, data: CaptionedBatches, size: int) -> dict:
    """Top-1 over all object names of single objects on held-out stuff, seen and unseen art styles."""
    model.eval()
    texts = torch.stack([data.tokens(f"a photo of a {name}.") for name in object_names()])
    words = F.normalize(model.encode_text(texts), dim=-1)
    scores = {}
    for styles in ("seen", "unseen"):
        composer = SceneComposer(size, (1, 1), (20, 0.9 * size), styles, "held_out", 0.5, 0.8)
        labels = torch.arange(4 * len(words)) % len(words)
        images = [composer([7, i], [int(label)]).image for i, label in enumerate(labels)]
        images = normalize(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        features = torch.cat([F.normalize(model.encode_image(part), dim=-1) for part in images.split(128)])
        scores[f"top1_{styles}"] = round(float(((features @ words.T).argmax(-1) == labels).float().mean()), 4)
    model.train()
    return scores


def save(path: Path, state: dict):
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/tiny_clip"))
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes after which to save and leave")
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    args.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])

    ids = token_ids()
    model = CLIP(
        config["model"]["embed_dim"],
        CLIPVisionCfg(**config["model"]["vision_cfg"] | {"image_size": config["stages"][0]["size"]}),
        CLIPTextCfg(**config["model"]["text_cfg"] | {"vocab_size": len(ids)}),
        init_logit_scale=float(np.log(10)),
    )
    data = CaptionedBatches(config["stages"], ids, config["model"]["text_cfg"]["context_length"], config["seed"])
    last, start = args.work_dir / "last.pt", 0
    opts, state = None, None
    if last.exists():
        state = torch.load(last, weights_only=True)
        start = state["step"]
    stage_now = None
    loader = batches(data, start, args.workers)
    log = (args.work_dir / "log.jsonl").open("a")
    clock, since, losses = time.time(), time.time(), []
    for step, (images, tokens) in enumerate(loader, start):
        number = data.stage(step)
        if number != stage_now:
            stage, stage_now = config["stages"][number], number
            resize_positions(model, stage["size"])
            model.visual.patch_dropout.prob = stage["patch_dropout"]
            opts = optimizers(model, config)
            if state is not None:
                model.load_state_dict(state["model"])
                for opt, saved in zip(opts, state["optimizers"], strict=True):
                    opt.load_state_dict(saved)
                state = None
        factor = rate(step, data, config)
        for opt, lr in zip(opts, (config["lr_muon"], config["lr"]), strict=True):
            opt.param_groups[0]["lr"] = lr * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=config["precision"] == "bf16"), sdpa_kernel(SDPBackend.MATH):
            image, text, scale = model(normalize(images), tokens)
        logits = scale * image.float() @ text.float().T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        for opt in opts:
            opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        model.logit_scale.data.clamp_(0, np.log(100))
        losses.append(loss.item())
        done = step + 1
        stop = time.time() - clock > 60 * args.stop_after
        if done % config["log_every"] == 0 or done == len(data) or stop:
            line = {
                "step": done,
                "size": stage["size"],
                "loss": round(float(np.mean(losses)), 4),
                "scale": round(float(scale), 2),
            }
            line |= {"images_per_s": round(len(losses) * stage["batch"] / (time.time() - since), 1)}
            if done % (4 * config["log_every"]) == 0 or done == len(data):
                line |= validate(model, data, stage["size"])
                save(
                    last,
                    {
                        "step": done,
                        "model": model.state_dict(),
                        "optimizers": [o.state_dict() for o in opts],
                        "ids": ids,
                    },
                )
            line["minutes"] = round((time.time() - clock) / 60, 2)
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            losses, since = [], time.time()
        if stop:
            save(
                last,
                {"step": done, "model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "ids": ids},
            )
            break


if __name__ == "__main__":
    main()
