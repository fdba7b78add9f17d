"""Distill a ViT from the trained convolutional tower: same joint space, same text tower, attention to experiment with.

    L = d(c, c*) + β · mean over patches d(v(p), f*(p))
    d(a, b) = 1 − cos(a, b) + λ·KL( softmax(s·T b) ‖ softmax(s·T a) )

c is the embedding of the class token, v(p) = proj(ln_post(W_o V(p))) the value path of the last block, which methods
that change the last attention average; c* and f*(p) are the teacher's embedding and its dense features at output stride
16, T the names of all sources.  Patches are 16 px, so that both grids agree.

    python tools/embedded/student.py configs/embedded/embedded_vit.json --teacher work_dirs/embedded/cnn/last.pt \
        --data work_dirs/embedded/data --wordnet package/dict

The same command resumes.  Batch i is a function of (seed, i).
"""

import argparse
import json
import time
from pathlib import Path

import state as states
import torch
import torch.nn.functional as F
from batches import Batches
from hierarchy import Hierarchy
from measure import Model, coco, scenes, top1
from open_clip.transformer import VisionTransformer
from photos import names as photo_names
from text import Phrases
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from train import Learner, average
from wordnet import WordNet, imagenet_classes, imagenet_lemmas
from words import Words, load_words


class Student(VisionTransformer):
    """open_clip's ViT, and the value path of its last block."""

    def __init__(self, embed_dim: int, config: dict):
        width = config["width"]
        heads = width // config["head_width"]
        sizes = config["image_size"], config["patch_size"], width, config["layers"], heads
        super().__init__(*sizes, mlp_ratio=4.0, output_dim=embed_dim)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) → embedding (B, E) and value path (B, h, w, E)."""
        x = self._embeds(images)
        *earlier, last = self.transformer.resblocks
        for block in earlier:
            x = block(x)
        normed, attention = last.ln_1(x[:, 1:]), last.attn
        width = normed.shape[-1]
        values = F.linear(normed, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        patches = self.ln_post(attention.out_proj(values)) @ self.proj
        embedding = self.ln_post(last(x)[:, 0]) @ self.proj
        return embedding, patches.unflatten(1, self.grid_size)


def distance(here: Tensor, there: Tensor, words: Tensor, scale: float, weight: float) -> Tensor:
    """d of the equation, mean over (n, E)."""
    here, there = F.normalize(here.float(), dim=-1), F.normalize(there.float(), dim=-1)
    ours, theirs = ((scale * x @ words.T).log_softmax(-1) for x in (here, there))
    kl = F.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    return 1 - (here * there).sum(-1).mean() + weight * kl


def all_names(words: Words) -> list[str]:
    """One name for every label of every source, and the 1,000 of ImageNet."""
    names = [group[0] for group in (*words.coco, *words.scenes, *words.rooms)]
    names += [imagenet_lemmas()[synset][0] for synset in imagenet_classes()]
    return [name for name in dict.fromkeys(names) if name.lower() not in words.banned]


@torch.no_grad()
def measure(student: Student, encode, words: Words, folder: Path, side: int) -> dict:
    """Figures of whole pictures: photographs by the class token, pixels by the value path of one square view."""

    def dense(images: Tensor, stride: int) -> Tensor:
        x = F.interpolate(images, (side, side), mode="bicubic", align_corners=False)
        embedding, patches = student.read(x)
        return embedding[:, None, None] if stride == 32 else patches

    model = Model(dense, encode)
    first = {kind: [names[0] for names in photo_names(kind).values()] for kind in ("objects64", "scenes32")}
    figures = coco(model, [group[0] for group in words.coco], words.held["coco"], side, step=4)
    drawn = scenes(model, [group[0] for group in words.scenes], 30, shorter=side)
    return {
        "top1_200": top1(model, folder, "objects64", first["objects64"], side, 10),
        "top1_80": top1(model, folder, "scenes32", first["scenes32"], side, 8),
        "coco_v20": figures["v20"],
        "coco_full": figures["full"]["mIoU"],
        "scenes_v20": drawn["v20"]["mIoU"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/embedded/vit"))
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes after which to save and leave")
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    c, model = config["train"], config["model"]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    words = load_words(config["hold_out"])
    teacher = Learner(json.loads((args.config.parent / config["cnn"]).read_text()))
    trained = torch.load(args.teacher, weights_only=True)["mean"]
    teacher.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in trained.items()})
    teacher.requires_grad_(False)
    phrases, scale = Phrases(model["text_cfg"]["context_length"]), teacher.logit_scale.exp().item()

    @torch.no_grad()
    def encode(names: list[str]) -> Tensor:
        return teacher.words([phrases.row(name) for name in names], 8)

    known = encode(all_names(words))
    student = Student(model["embed_dim"], model["vision_cfg"])
    data = Batches(args.data, words, Hierarchy(WordNet(args.wordnet), words.banned), c, config["seed"])
    matrices = [p for n, p in student.named_parameters() if p.ndim == 2 and "resblocks" in n]
    chosen = {id(p) for p in matrices}
    others = [p for p in student.parameters() if id(p) not in chosen]
    opts = states.optimizers([(matrices, c["lr_muon"], "muon"), (others, c["lr"], "adamw")], c["weight_decay"])
    last, start = args.work_dir / "last.pt", 0
    mean = {name: value.clone() for name, value in student.state_dict().items()}
    if (saved := states.load(last) or states.load_compact(args.config.parent / c["start"])) is not None:
        start, mean = saved["step"], mean | saved["mean"]
        student.load_state_dict(saved.get("model", mean))
        for opt, values in zip(opts, saved.get("optimizers", []), strict=False):
            opt.load_state_dict(values)
    log, began, kept, measured = states.Log(args.work_dir / "log.jsonl"), time.time(), time.time(), time.time()
    for step in range(start, c["steps"]):
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = group["base"] * states.rate(step, c["steps"], c["warmup"])
        batch = data.batch(step)
        images = torch.cat([batch.photos, batch.mosaics, *(crop[0] for crop in batch.crops.values())])
        with torch.no_grad():
            target = teacher.features(images, 16)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            embedding, patches = student.read(images)
        whole = distance(embedding, target.mean((1, 2)), known, scale, c["names"])
        parts = distance(patches.flatten(0, 2), target.flatten(0, 2), known, scale, c["names"])
        for opt in opts:
            opt.zero_grad()
        (whole + c["patches"] * parts).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for opt in opts:
            opt.step()
        done = step + 1
        average(mean, student, min(c["average"], 1 - 1 / (done + 1)))
        log.add(whole=whole, patches=parts)
        leave = done == c["steps"] or time.time() - began > 60 * args.stop_after
        if done % c["log_every"] == 0:
            log.write(done)
        if time.time() - kept > 300 or leave:
            kept = time.time()
            state = {"step": done, "mean": mean, "model": student.state_dict()}
            states.save(last, state | {"optimizers": [o.state_dict() for o in opts]})
        if time.time() - measured > 60 * c["measure_every"] or leave:
            measured = time.time()
            live = {name: value.clone() for name, value in student.state_dict().items()}
            student.load_state_dict(mean)
            log.write(done, **measure(student, encode, words, args.data, model["vision_cfg"]["image_size"]))
            student.load_state_dict(live)
        if leave:
            break


if __name__ == "__main__":
    main()
