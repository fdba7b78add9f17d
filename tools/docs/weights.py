"""The table of docs/weights.md: every architecture of open_clip, how it is read and which methods fit, by looking at
each of them shrunken.  tests/test_sweep.py asserts that the embeddings are open_clip's.

python tools/docs/weights.py docs/weights.md
"""

import argparse
from pathlib import Path

import open_clip

from ovseg.registry import DENSE, names
from ovseg.testing.shrunken import shrunken, small_config
from ovseg.towers import Preprocess, TowerCard, missing
from ovseg.towers.architecture import sketch
from ovseg.towers.build import make_tower
from ovseg.towers.tokenizer import tokenizer_record

BEGIN, END = "<!-- table: tools/docs/weights.py -->", "<!-- end of the table -->"
KINDS = {
    "EVA02-E": "EVA-02-CLIP E", "EVA0": "EVA-CLIP, EVA-02-CLIP", "PE-Core": "PE-Core", "convnext": "ConvNeXt",
    "coca": "CoCa", "ViTamin": "ViTamin", "RN": "ResNet", "swin": "Swin", "vit_": "ViTs of timm", "nllb": "NLLB-CLIP",
    "mt5": "mT5", "xlm-roberta": "XLM-RoBERTa", "roberta": "RoBERTa",
}  # fmt: skip
INSIDE = {
    "SigLIP2": "SigLIP 2", "SigLIP": "SigLIP", "CLIPA": "CLIPA", "worldwide": "MetaCLIP 2 worldwide",
}  # fmt: skip
READINGS = {
    "vit": "open_clip's blocks opened",
    "resnet": "CLIP's attention pool opened",
    "eva": "timm's EVA-02 blocks opened",
    "timm_vit": "timm's blocks opened",
    "cnn": "head at every position; `output_stride`",
}
LICENSES = {"MetaCLIP 2 worldwide": "CC-BY-NC-4.0", "MobileCLIP, MobileCLIP 2": "Apple's research license"}


def kind_of(name: str) -> str:
    """What an architecture is called in the table."""
    if name.startswith("MobileCLIP"):
        return "MobileCLIP, MobileCLIP 2"
    for part, kind in INSIDE.items():
        if part in name and not name.startswith("nllb"):
            return kind
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), "CLIP ViT")


def look(name: str, methods: list[str]) -> tuple[str, str, str]:
    """How an architecture is read, its tokenizer and the methods that fit; a refusal is the first of them."""
    config = small_config(name)
    words = "Hugging Face's" if tokenizer_record(config["text_cfg"]).name else "CLIP's"
    if config["text_cfg"].get("hf_model_name"):
        return "open_clip's blocks opened; text model of Hugging Face, not in the test", words, ""
    try:
        tower = make_tower(sketch(config).visual, None, Preprocess(), TowerCard(name))
    except ValueError as error:
        return f"refused: {str(error).rpartition('; this ')[2].partition('.')[0]}", words, ""
    fit = [method for method in methods if not missing(tower, DENSE.get(method).requires)]
    pool = ", then its pool's value path" if getattr(tower.visual, "attn_pool", None) is not None else ""
    if tower.family == "timm_vit" and tower.visual.trunk.attn_pool is not None:
        pool = ", then its pool's value path"
    return READINGS[tower.family] + pool, words, f"{len(fit)} of {len(methods)}"


def table() -> str:
    """Rows of architectures that are read alike."""
    methods = [name for name in names(DENSE) if hasattr(DENSE.get(name), "requires")]
    rows: dict[tuple, list[str]] = {}
    with shrunken():
        for name in open_clip.list_models():
            rows.setdefault((kind_of(name), *look(name, methods)), []).append(name)
    lines = ["| architectures | read by | tokenizer | methods | tags | |", "|---|---|---|---|---|---|"]
    for (kind, reading, words, fit), members in rows.items():
        tags = sum(len(open_clip.list_pretrained_tags_by_model(name)) for name in members)
        some = ", ".join(f"`{name}`" for name in members[:3]) + (f" and {len(members) - 3} more" * (len(members) > 3))
        lines.append(f"| {kind}: {some} | {reading} | {words} | {fit} | {tags} | {LICENSES.get(kind, '')} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page = parser.parse_args().page
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
