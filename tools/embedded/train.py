"""Train the picture tower, and the text tower with it, from the teachers' weights.

    L = mean over photographs −Σ_k y_k log softmax_k( s·cos(f, T) )             names at every level, teacher's shares
      + λ · mean over crops, weighted by pixel, of the same at every cell       coco_mini train, drawn scenes
      + μ · the text tower's distillation, so that words without pictures stay where they are

Up to step ``joint_from`` words are the fixed targets of the text tower's own distillation (``phrases.py``), which runs
beside (``train_text.py``); from then on T is what the text tower gives, and both learn.

    python tools/embedded/train.py configs/embedded/embedded.json --data work_dirs/embedded/data --wordnet package/dict

The same command resumes from ``last.pt`` (everything), or else from the compact state that the config names (weights
and step, half precision; the optimizer's moments start anew).  Batch i is a function of (seed, i).  ``log.jsonl`` holds
the curve.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import state as states
import torch
import torch.nn.functional as F
from batches import Batch, Batches
from folded import DTYPE, FoldedTrunk
from hierarchy import Hierarchy
from measure import quick
from teachers import efficientnet_lite
from text import TextTower
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_text import Corpus, encode, loss_of
from wordnet import WordNet, imagenet_classes, imagenet_lemmas
from words import load_words


class Learner(nn.Module):
    """Both towers as they are trained."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        name = model["vision_cfg"]["timm_model_name"].removeprefix("tf_efficientnet_")
        teacher = efficientnet_lite(name)
        self.classifier = teacher.classifier.weight.detach(), teacher.classifier.bias.detach()
        self.trunk = FoldedTrunk(teacher)
        self.teacher = (FoldedTrunk(teacher).requires_grad_(False),)  # in a tuple: no part of the state
        self.proj = nn.Linear(self.classifier[0].shape[1], model["embed_dim"], bias=False)
        self.text = TextTower(model["embed_dim"], model["text_cfg"], config["token_rank"])
        self.logit_scale = nn.Parameter(torch.tensor(config["logit_scale"]).log())

    @torch.no_grad()
    def start_projection(self, words: Tensor, ridge: float = 3.0):
        """P = argmin |T P − W|² + r|P|²: the teacher's classifier W (1000, D) as similarities to words T (1000, E)."""
        gram = words.T @ words + ridge * torch.eye(words.shape[1])
        weight = torch.linalg.solve(gram, words.T @ (self.classifier[0] - self.classifier[0].mean(0)))
        self.proj.weight.copy_(weight / weight.std() * weight.shape[1] ** -0.5)

    def features(self, images: Tensor, stride: int) -> Tensor:
        """(B, 3, H, W) → (B, h, w, E), not normalized."""
        return self.project(self.trunk(self.trunk.fixed(images), stride))

    def project(self, x: Tensor) -> Tensor:
        return F.linear(x, self.proj.weight.to(DTYPE)).float()

    @torch.no_grad()
    def ask(self, fixed: Tensor, stride: int) -> Tensor:
        """The teacher's logits before pooling, (B, h, w, 1000), from what the fixed stages give."""
        weight, bias = (value.to(DTYPE) for value in self.classifier)
        return F.linear(self.teacher[0](fixed, stride), weight, bias).float()

    def words(self, rows: list[list[int]], parts: int = 4) -> Tensor:
        """Rows of ids → unit vectors (K, E)."""
        with torch.autocast("cpu", DTYPE), sdpa_kernel(SDPBackend.MATH):
            out = encode(self.text, rows, parts)
        return F.normalize(out.float(), dim=-1)


def tile_means(features: Tensor, tiles: Tensor) -> Tensor:
    """Mean of features (m, h, w, E) over the cells of every tile: (tiles, E)."""
    member = F.one_hot(tiles.flatten()).float()
    return member.T @ features.flatten(0, 2) / member.sum(0)[:, None]


def crop_loss(features: Tensor, words: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy at stride 8; a crop's classes share half of its weight equally, its cells the other half."""
    logits = scale * F.normalize(features, dim=-1) @ words.T
    logits = F.interpolate(logits.permute(0, 3, 1, 2), labels.shape[1:], mode="bilinear", align_corners=False)
    known = labels < words.shape[0]
    counts = F.one_hot(labels.clamp(max=words.shape[0]).flatten(1), words.shape[0] + 1).sum(1)[:, :-1].float()
    share = 0.5 / counts.clamp_min(1) / (counts > 0).sum(1, keepdim=True).clamp_min(1)
    share = share + 0.5 / counts.sum(1, keepdim=True).clamp_min(1)
    weight = torch.where(known, share.gather(1, labels.clamp(max=words.shape[0] - 1).flatten(1)).view_as(labels), 0)
    losses = F.cross_entropy(logits, torch.where(known, labels, -1), ignore_index=-1, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp_min(1e-6)


def text_vectors(model: Learner, phrases: list[str], corpus: Corpus, step: int, config: dict) -> tuple[Tensor, Tensor]:
    """Unit vectors (K, E) of phrases, a share of them in random templates, and the loss of distillation."""
    rng, share = np.random.default_rng([config["seed"], step, 1]), config["train"]["templates"]
    templates = len(corpus.phrases.templates)
    drawn = [int(rng.integers(templates)) if rng.random() < share else None for _ in phrases]
    asked = [corpus.phrases.row(phrase, template) for phrase, template in zip(phrases, drawn, strict=True)]
    rows, targets = corpus.batch(step)
    vectors = model.words([*asked, *rows])
    loss, _ = loss_of(vectors[len(asked) :], targets, config["distill_text"]["rows"])
    return vectors[: len(asked)], loss


def step_losses(model: Learner, batch: Batch, corpus: Corpus, step: int, config: dict) -> dict[str, Tensor]:
    scale, losses = model.logit_scale.exp(), {}
    lists = {"photos": batch.photo_words} | {name: crop[2] for name, crop in batch.crops.items()}
    phrases = [phrase for words in lists.values() for phrase in words]
    if step < config["train"]["joint_from"]:
        vectors = corpus.vectors(phrases)
    else:
        vectors, losses["text"] = text_vectors(model, phrases, corpus, step, config)
    words = dict(zip(lists, vectors.split([*map(len, lists.values())]), strict=True))
    below = model.trunk.fixed(batch.photos)
    single = model.project(model.trunk(below, 32)).mean((1, 2))
    targets = batch.photo_targets
    if batch.levels is not None:
        logits = model.ask(below, 32).mean((1, 2))
        tiles = tile_means(model.ask(model.trunk.fixed(batch.mosaics), 16), batch.tiles)
        targets = with_teacher(batch, torch.cat([logits, tiles]))
    crops = [batch.mosaics, *(images for images, *_ in batch.crops.values())]
    dense = model.features(torch.cat(crops), 16).split([len(part) for part in crops])
    photos = F.normalize(torch.cat([single, tile_means(dense[0], batch.tiles)]), dim=-1)
    log_odds = (scale * photos @ words["photos"].T).log_softmax(-1)
    known = targets.sum(-1).clamp(max=1)
    losses["photos"] = -(targets * log_odds).sum() / known.sum().clamp_min(1)
    for (name, (_, labels, phrases)), features in zip(batch.crops.items(), dense[1:], strict=True):
        there = torch.tensor([bool(phrase) for phrase in phrases])
        new = torch.full((256,), 255).masked_scatter(
            F.pad(there, (0, 256 - len(there))), torch.arange(int(there.sum()))
        )
        losses[name] = crop_loss(features, words[name][there], new[labels], scale)
    return losses


def with_teacher(batch: Batch, logits: Tensor) -> Tensor:
    """Targets (n, K), every row half the label and half a teacher: that of ``logits`` (n, 1000) where none was."""
    soft = logits.softmax(-1) @ batch.levels
    soft = soft / soft.sum(-1, keepdim=True).clamp_min(1e-6)
    return torch.where(batch.asked[:, None], batch.photo_targets, 0.5 * batch.photo_targets + 0.5 * soft)


def average(mean: dict[str, Tensor], model: nn.Module, decay: float):
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            mean[name].lerp_(value, 1 - decay)


def load_text(model: Learner, mean: dict[str, Tensor], path: Path, compact: Path):
    """The text tower from its distillation, into the model and into its running mean."""
    saved = states.load(path) or states.load_compact(compact)
    if saved is None:
        raise FileNotFoundError(f"neither {path} nor {compact}: run train_text.py first")
    model.text.load_state_dict(saved["model"] if "model" in saved else saved["mean"])
    mean.update({f"text.{name}": value.clone() for name, value in model.text.state_dict().items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--text", type=Path, default=Path("work_dirs/embedded/text/last.pt"))
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/embedded/cnn"))
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes after which to save and leave")
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    c = config["train"]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    words = load_words(config["hold_out"])
    model = Learner(config)
    context = config["model"]["text_cfg"]["context_length"]
    corpus = Corpus(args.data, context, max(c["phrases"], 1), config["seed"] + 1)
    data = Batches(args.data, words, Hierarchy(WordNet(args.wordnet), words.banned), c, config["seed"])
    opts = states.optimizers(
        [
            (model.trunk.trained(), c["lr_trunk"], "adamw"),
            ([model.proj.weight, model.logit_scale], c["lr_proj"], "adamw"),
            (list(model.text.parameters()), c["lr_text"], "adamw"),
        ],
        c["weight_decay"],
    )
    last, start = args.work_dir / "last.pt", 0
    saved = states.load(last) or states.load_compact(args.config.parent / c["start"])
    if saved is None:
        model.start_projection(corpus.vectors([imagenet_lemmas()[synset][0] for synset in imagenet_classes()]))
        mean = {name: value.clone() for name, value in model.state_dict().items()}
    else:
        start, mean = saved["step"], model.state_dict() | saved["mean"]
        mean = {name: value.clone() for name, value in mean.items()}
        model.load_state_dict(saved.get("model", mean))
        for opt, values in zip(opts, saved.get("optimizers", []), strict=False):
            opt.load_state_dict(values)
    first = start
    log, began, kept = states.Log(args.work_dir / "log.jsonl"), time.time(), time.time()
    measured = time.time()
    for step in range(start, c["steps"]):
        if step == c["joint_from"]:
            load_text(model, mean, args.text, args.config.parent / config["distill_text"]["start"])
        factor = states.rate(step, c["steps"], c["warmup"]) * min(1.0, (step - first + 1) / c["warmup"])
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = group["base"] * factor
        losses = step_losses(model, data.batch(step), corpus, step, config)
        for opt in opts:
            opt.zero_grad()
        sum(c["weights"][name] * loss for name, loss in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c["clip"])
        for opt in opts:
            opt.step()
        model.logit_scale.data.clamp_(0, np.log(100))
        done = step + 1
        average(mean, model, min(c["average"], 1 - 1 / (done + 1)))
        log.add(**losses)
        leave = done == c["steps"] or time.time() - began > 60 * args.stop_after
        if done % c["log_every"] == 0:
            log.write(done, scale=round(model.logit_scale.exp().item(), 2))
        if time.time() - kept > 300 or leave:
            kept = time.time()
            state = {"step": done, "mean": mean, "model": model.state_dict()}
            states.save(last, state | {"optimizers": [o.state_dict() for o in opts]})
        if time.time() - measured > 60 * c["measure_every"] or leave:
            measured = time.time()
            live = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(mean)
            log.write(done, **quick(model, corpus, words, args.data, done > c["joint_from"]))
            model.load_state_dict(live)
        if leave:
            break


if __name__ == "__main__":
    main()
