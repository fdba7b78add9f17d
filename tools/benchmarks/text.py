"""What it costs to encode words: prompts up to their end token against the full context, and words from the disk cache.

    python tools/benchmarks/text.py --out docs/tables            # the text tower of ViT-B/16 with random weights
    python tools/benchmarks/text.py --words 6 --runs 1           # a short look

Cold: some words of ade150 with 80 templates each, by open_clip's ``encode_text`` on all 77 positions and by
``TextEncoder``, in pairs one after the other; the ratio is the median of the pairs.  Times of all 150 words are those
of the sample times 150 / its size.  Warm: all 150 words from the cache, reading the disk.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch
from methods import publish, timed
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from ovseg.progress import track
from ovseg.rng import seeded
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Preprocess, Tower, TowerCard
from ovseg.towers.build import make_tower


def random_clip(seed: int = 0) -> Tower:
    """The text tower of ViT-B/16 (12 blocks, width 512, 77 positions), random weights; its image tower is a stub."""
    with seeded(seed):
        vision = CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=16, image_size=32)
        clip = CLIP(512, vision, CLIPTextCfg()).eval()
    return make_tower(clip.visual, clip, Preprocess(), TowerCard("text of ViT-B-16, random weights", "random-text"))


@torch.inference_mode()
def measure(words: int, runs: int) -> dict:
    """Milliseconds and ratios."""
    tower, names = random_clip(), list(Vocabulary.parse("ade150").names)
    encoder = TextEncoder(tower, "imagenet_80")
    sample = names[:: max(1, len(names) // words)][:words]
    tokens = encoder.tokens(sample)

    def full():
        return torch.cat([tower.clip.encode_text(part) for part in tokens.split(256)])

    encoder.encode(sample[:2])
    pairs, scale = [], len(names) / len(sample)
    for _ in track(range(runs), "pairs"):
        pairs.append((timed(full), timed(lambda: encoder.encode(sample))))
    ratios = [slow / fast for slow, fast in pairs]
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(folder)
        cache.put(tower.card.identity, encoder.key, dict(zip(names, torch.randn(len(names), 512), strict=True)))
        warm = [timed(lambda: TextEncoder(tower, "imagenet_80", EmbeddingCache(folder))(names)) for _ in range(5)]
    return {
        "words": len(names),
        "templates": len(encoder.templates),
        "sampled words": len(sample),
        "mean length": round(float((tokens.argmax(1) + 1).float().mean()), 2),
        "full context s": scale * statistics.median(slow for slow, _ in pairs) / 1000,
        "ours s": scale * statistics.median(fast for _, fast in pairs) / 1000,
        "times faster": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "warm cache ms": statistics.median(warm),
    }


def markdown(report: dict) -> str:
    row = report["row"]
    return (
        f"{report['tower']}, {report['threads']} thread(s), {report['runs']} pairs of runs on {row['sampled words']} "
        f"of {row['words']} words × {row['templates']} templates ({row['mean length']} of 77 positions on "
        f"average), torch {report['torch']}.\n\n"
        "| | 150 words × 80 templates |\n|---|---|\n"
        f"| open_clip, full context | {row['full context s']:.0f} s |\n"
        f"| ovseg, up to the end token | {row['ours s']:.0f} s, {row['times faster']:.1f} times faster "
        f"({row['spread'][0]:.1f} to {row['spread'][1]:.1f}) |\n"
        f"| ovseg, all words in the cache | {row['warm cache ms']:.0f} ms |\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=15, help="size of the sample")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder for text_speed.md and .json; only printed unless given")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = {"tower": "text of ViT-B-16, random weights", "threads": args.threads, "runs": args.runs}
    report |= {"torch": torch.__version__, "row": measure(args.words, args.runs)}
    publish("text_speed", report, markdown(report), args.out, args.json)


if __name__ == "__main__":
    main()
