"""Phrases and where MiniLM puts them: what the text tower is distilled from.

    t(p) = normalize( m(p) + w·m(parent of p) + w²·m(grandparent of p) )       m: MiniLM, parents: WordNet hypernyms

    python tools/embedded/phrases.py --wordnet package/dict --out work_dirs/embedded/data

Writes ``phrases.txt`` (one a line, after ``split<TAB>plain<TAB>``: split ``val`` is kept out, plain phrases may be put
into templates) and ``targets.npy`` ((N, 384) float16), and ``tokens.npy`` ((V, 384) float16), MiniLM's vector of every
CLIP token, from which the token table starts.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from photos import SIDES
from photos import names as photo_names
from teachers import MiniLM
from wordnet import WordNet, imagenet_classes, imagenet_lemmas

from ovseg.datasets.scenes import caption, object_names, spellings
from ovseg.text.benchmark_vocabularies import list_benchmarks
from ovseg.text.vocabulary import Vocabulary

QUALITIES = (
    "red orange yellow green blue purple pink brown black white gray dark bright golden silver striped spotted wooden "
    "metal plastic glass stone brick leather woolen old new small large tall long round square flat open closed empty "
    "full dirty clean wet dry broken parked flying running sitting standing sleeping swimming wild young"
).split()
JOINTS = ("on", "in", "with", "and", "next to", "in front of", "behind", "near", "under")


def vocabulary_names() -> list[str]:
    """Names and synonyms of every list that ships with ovseg, and of the photographs."""
    names = [name for labels in spellings() for name in labels]
    names += [name for kind in SIDES for labels in photo_names(kind).values() for name in labels]
    for benchmark in list_benchmarks():
        vocabulary = Vocabulary.parse(benchmark)
        names += list(vocabulary.names) + [word for words in vocabulary.synonyms for word in words]
    return names


def token_strings(tokenizer: SimpleTokenizer) -> list[str]:
    """What every token of CLIP's vocabulary spells."""
    return [tokenizer.decode([i]).strip() or "." for i in range(tokenizer.vocab_size)]


def collect(wordnet: WordNet, tokenizer: SimpleTokenizer, seed: int) -> list[tuple[str, str, str]]:
    """Rows (phrase, split, plain)."""
    rng = np.random.default_rng(seed)
    lemmas = [name for names in imagenet_lemmas().values() for name in names]
    usual = [name for synset in imagenet_classes() for name in imagenet_lemmas()[synset]]
    lists = vocabulary_names()
    nouns = [w for w in wordnet.senses if w.isascii() and len(w.split()) <= 2 and not any(c.isdigit() for c in w)]
    tokens = [w for w in token_strings(tokenizer) if w.isascii() and w.isalpha() and len(w) > 2]
    plain = list(dict.fromkeys(p.strip().lower() for p in (*lists, *usual, *lemmas, *nouns, *tokens) if p.strip()))
    safe = {p.lower() for p in (*lists, *usual)}
    held = {lemma.lower() for lemma in lemmas} - safe
    held = set(rng.choice(sorted(held), 1000, replace=False).tolist())
    rows = [(p, "val" if p in held else "train", "1") for p in plain]
    heads = [p for p in dict.fromkeys(p.lower() for p in (*lists * 3, *usual, *lemmas)) if p not in held]
    weights = np.array([6.0 if p in safe else 1.0 for p in heads])
    picked = [heads[i] for i in rng.choice(len(heads), 50_000, p=weights / weights.sum())]
    drawn = [f"{rng.choice(QUALITIES)} {noun}" for noun in picked[:30_000]]
    drawn += [f"{a} {rng.choice(JOINTS)} {b}" for a, b in zip(picked[30_000:40_000], picked[40_000:], strict=True)]
    drawn += [p + "s" for p in sorted(safe) if not p.endswith("s")]
    total = len(spellings())
    for _ in range(6_000):
        drawn.append(caption(rng, rng.choice(total, rng.integers(1, 4), replace=False).tolist()).rstrip("."))
    seen = set(plain)
    return rows + [(p, "train", "0") for p in dict.fromkeys(drawn) if p not in seen]


def ask(teacher: MiniLM, phrases: list[str], folder: Path, part: int = 8192) -> torch.Tensor:
    """The teacher's vectors (n, 384); what was asked before is read from ``folder``."""
    folder.mkdir(exist_ok=True)
    known = {}
    for path in sorted(folder.glob("*.txt")):
        names = path.read_text(encoding="utf-8").split("\n")
        known.update(zip(names, np.load(path.with_suffix(".npy")), strict=True))
    missing, number = [phrase for phrase in phrases if phrase not in known], len(list(folder.glob("*.txt")))
    for start in range(0, len(missing), part):
        names = missing[start : start + part]
        vectors = teacher(names).numpy()
        np.save(folder / f"{number:04}.npy", vectors)
        (folder / f"{number:04}.txt").write_text("\n".join(names), encoding="utf-8")
        known.update(zip(names, vectors, strict=True))
        print(f"{start + len(names)} of {len(missing)}", flush=True)
        number += 1
    return torch.from_numpy(np.stack([known[phrase] for phrase in phrases]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="folder with data.noun and index.noun")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--parent-weight", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wordnet, tokenizer, teacher = WordNet(args.wordnet), SimpleTokenizer(), MiniLM()
    rows = collect(wordnet, tokenizer, args.seed)
    phrases = [row[0] for row in rows]
    print(f"{len(phrases)} phrases, {len(object_names())} object names", flush=True)
    parents = [wordnet.parents_of(phrase) if plain == "1" else [] for phrase, _, plain in rows]
    tokens = token_strings(tokenizer)
    every = [*phrases, *(name for names in parents for name in names), *(token.lower() for token in tokens)]
    every = list(dict.fromkeys(every))
    row_of = {phrase: i for i, phrase in enumerate(every)}
    vectors = ask(teacher, every, args.out / "minilm")
    targets = vectors[[row_of[phrase] for phrase in phrases]].clone()
    for i, names in enumerate(parents):
        for level, name in enumerate(names, 1):
            targets[i] += args.parent_weight**level * vectors[row_of[name]]
    np.save(args.out / "targets.npy", F.normalize(targets, dim=-1).half().numpy())
    np.save(args.out / "tokens.npy", vectors[[row_of[token.lower()] for token in tokens]].half().numpy())
    lines = "\n".join(f"{split}\t{plain}\t{phrase}" for phrase, split, plain in rows)
    (args.out / "phrases.txt").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
