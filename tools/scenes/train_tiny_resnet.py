"""Train a small CLIP ResNet on composed scenes against the text tower of the embedded model, which stays as it is.

    python tools/scenes/train_tiny_resnet.py configs/tiny_clip/tiny_rn_scenes.json --work-dir work_dirs/tiny_resnet

The data are those of ``train_tiny_clip.py``: scenes drawn anew at every step and their captions. The image tower alone
learns, by the symmetric image-caption contrastive loss and nothing else, so that its features and those of the
embedded ViT live in one space. The last step writes a whole CLIP (this image tower, that text tower) to ``--out``.

Call it again to resume after an interruption: batch i is a function of (seed, i). ``log.jsonl`` in the work directory
holds the learning curve.
"""

import argparse
import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from train_tiny_clip import CaptionedBatches, batches, normalize, rate, save, token_ids, validate

from ovseg.compat.checkpoint import save_safetensors
from ovseg.towers.build import text_config
from ovseg.towers.positions import resize_positions
from ovseg.towers.weights import load_tower

NOTICE = (
    "ovseg-tiny-rn-scenes is a small ResNet for the demos of region detectors: made of drawn scenes, it knows some "
    "hundred words and no photographs."
)


def build(config: dict) -> CLIP:
    """A CLIP with a new ResNet and the frozen text tower of the embedded model."""
    source = load_tower(None).clip.state_dict()
    text = {name: tensor for name, tensor in source.items() if not name.startswith(("visual.", "logit_scale"))}
    model = CLIP(
        source["text_projection"].shape[1],
        CLIPVisionCfg(**config["vision_cfg"]),
        CLIPTextCfg(**text_config(text)),
        init_logit_scale=float(np.log(10)),
    )
    model.load_state_dict(text, strict=False)
    model.requires_grad_(False).visual.requires_grad_(True)
    model.logit_scale.requires_grad_(True)
    return model.to(memory_format=torch.channels_last)


def set_size(model: CLIP, size: int):
    """Fit the pool's table of positions to square pictures of ``size`` px."""
    side = size // 32
    table = model.visual.attnpool.positional_embedding
    if len(table) != side * side + 1:
        model.visual.attnpool.positional_embedding = nn.Parameter(resize_positions(table.data, (side, side)))
    model.visual.image_size = size


@torch.no_grad()
def encode_captions(model: CLIP, tokens: Tensor) -> Tensor:
    """Unit text features (B, E) of token ids (B, L): positions after the longest caption are left out."""
    ends = tokens.argmax(-1)
    length = int(ends.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x)), ends] @ model.text_projection
    return F.normalize(x.float(), dim=-1)


def export(model: CLIP, path: Path, trained: dict, config: dict):
    """Write the whole CLIP in half precision: only the token rows that captions can contain."""
    card = asdict(load_tower(None).card)
    state = {name: value.half() for name, value in model.state_dict().items() if not name.endswith("attn_mask")}
    rows = torch.tensor(token_ids(), dtype=torch.int32)
    state["token_embedding.weight"] = state["token_embedding.weight"][rows.long()]
    state["token_rows"] = rows
    state = {name: value.contiguous() for name, value in state.items()}
    model_config = {
        "embed_dim": model.visual.output_dim,
        "vision_cfg": config["vision_cfg"] | {"image_size": model.visual.image_size},
        "text_cfg": text_config(model.state_dict()),
    }
    card = {"words": list(card["words"]), "notice": NOTICE, "protocol": card["protocol"]}
    own = {"name": "ovseg-tiny-rn-scenes", "config": model_config, "quick_gelu": False, "card": card}
    own |= {"training": trained}
    save_safetensors(path, state, {"ovseg": json.dumps(own)})
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/tiny_resnet"))
    parser.add_argument("--out", type=Path, default=None, help="where to write the checkpoint; by default WORK_DIR")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose scenes")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="minutes after which to save and leave")
    parser.add_argument("--export-only", action="store_true", help="write --out from the last checkpoint and leave")
    args = parser.parse_args()
    config = json.loads(args.config.read_text(encoding="utf-8"))
    args.work_dir.mkdir(parents=True, exist_ok=True)
    out = args.out or args.work_dir / "tiny_rn.safetensors"
    torch.manual_seed(config["seed"])

    model = build(config)
    context = len(model.positional_embedding)
    data = CaptionedBatches(config["stages"], range(model.vocab_size), context, config["seed"])
    learning = [p for p in model.parameters() if p.requires_grad]
    last, start, state, stage_now = args.work_dir / "last.pt", 0, None, None
    if last.exists():
        state = torch.load(last, weights_only=True)
        start = state["step"]
    log = (args.work_dir / "log.jsonl").open("a", encoding="utf-8")
    loader = batches(data, start, args.workers)

    def prepare(number: int):
        """The optimizer of a stage; a resumed run gets its state back."""
        nonlocal state
        set_size(model, config["stages"][number]["size"])
        kind = {"lr": config["lr"], "betas": (0.9, 0.98), "weight_decay": config["weight_decay"]}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **kind)
        if state is not None:
            model.load_state_dict(state["model"])
            if state["stage"] == number:
                optimizer.load_state_dict(state["optimizer"])
            state = None
        return optimizer

    if args.export_only:
        set_size(model, config["stages"][data.stage(start - 1)]["size"])
        model.load_state_dict(state["model"])
        export(model, out, {"steps": start, "seed": config["seed"]}, config)
        return
    clock, since, losses = time.time(), time.time(), []
    for step, (images, tokens) in enumerate(loader, start):
        number = data.stage(step)
        if number != stage_now:
            stage, stage_now = config["stages"][number], number
            optimizer = prepare(number)
            learning = list(itertools.chain(*(group["params"] for group in optimizer.param_groups)))
        optimizer.param_groups[0]["lr"] = config["lr"] * rate(step, data, config)
        images = normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config["precision"] == "bf16"):
            image, text = model.visual(images), encode_captions(model, tokens)
        logits = model.logit_scale.exp() * F.normalize(image.float(), dim=-1) @ text.T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(0, np.log(100))
        losses.append(loss.item())
        done, stop = step + 1, time.time() - clock > 60 * args.stop_after
        if done % config["log_every"] == 0 or done == len(data) or stop:
            line = {"step": done, "size": stage["size"], "loss": round(float(np.mean(losses)), 4)}
            line |= {"scale": round(model.logit_scale.exp().item(), 2)}
            line |= {"images_per_s": round(len(losses) * stage["batch"] / (time.time() - since), 1)}
            if done % (6 * config["log_every"]) == 0 or done == len(data) or stop:
                line |= validate(model, data, stage["size"])
                weights, moments = model.state_dict(), optimizer.state_dict()
                save(last, {"step": done, "stage": number, "model": weights, "optimizer": moments})
            line["minutes"] = round((time.time() - clock) / 60, 2)
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            losses, since = [], time.time()
        if stop:
            break
    export(model, out, {"steps": done, "seed": config["seed"]}, config)


if __name__ == "__main__":
    main()
