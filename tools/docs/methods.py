"""Pages of the methods (docs/methods/*.md), model-index.yml and the README's table of scores.

    python tools/docs/methods.py                  # write all of them, and a picture for every page
    python tools/docs/methods.py --only naclip    # all texts, but no other picture than NACLIP's
    python tools/docs/methods.py --text           # no pictures
    python tools/docs/methods.py --check          # write nothing; exit code 1 if a text is not up to date

They are made of what is written by hand (docstrings, configs, ``configs/<method>/metafile.yml`` and
``docs/methods/protocols.yml``, which explains protocols that several methods share) and of what was measured
(``docs/tables``).
"""

import argparse
import ast
import json
import sys
from pathlib import Path

import yaml

from ovseg.spelling import did_you_mean

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["bus", "strawberry", "owl", "tree", "grass", "sky"]
THINGS = WORDS[:3]
PICTURE_BYTES = 60_000
QUOTES = "`table` names whose table was read: many are one paper quoting another. [Protocols](README.md#protocols)."
STYLES = ("seen", "unseen")
SEGMENT, PHRASES, TRAINED = "Open-Vocabulary Semantic Segmentation", "Phrase Localization", "Semantic Segmentation"
DETECT = "Open-Vocabulary Object Detection"
SPLIT = ("mIoU_seen", "mIoU_unseen", "hIoU")
BOXES = ("AP50", "AP50_base", "AP50_novel", "mask_AP50", "mAcc")
SCORES = {SEGMENT: ("mIoU", "aAcc"), PHRASES: ("accuracy", "pointing"), TRAINED: ("mIoU", "aAcc", *SPLIT)}
SCORES |= {DETECT: ("AP", *BOXES, "AR100", "AR100_any", "top1", "mAcc_base", "mAcc_novel")}
SHOWN = {SEGMENT: ("mIoU",), PHRASES: ("accuracy", "pointing"), TRAINED: ("mIoU",), DETECT: BOXES}
EMBEDDED = {SEGMENT: "embedded", PHRASES: "phrases-embedded", TRAINED: "trained-embedded", DETECT: "boxes-embedded"}
TABLES = {"test_tiny.json": SEGMENT, "phrases_tiny.json": PHRASES, "trained_tiny.json": TRAINED}
TABLES |= {"boxes_tiny.json": DETECT}
TOWERS = ("tiny", *(str(ROOT / f"configs/regionclip/{name}.safetensors") for name in ("tiny_rn", "tiny_rn_pretrained")))
"""The embedded model first, then those that other tiny configs begin with."""
USE = {SEGMENT: " --benchmark voc20", PHRASES: " --benchmark coco_mini_phrases", DETECT: " --benchmark coco_mini_boxes"}
LOADED = {SEGMENT: "`{name}`", PHRASES: "none: `ovseg locate`", TRAINED: "none: tools/train.py"}
LOADED |= {DETECT: "`ovseg.load_detector`, tools/train.py"}


def read_yaml(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def metafiles() -> dict[str, dict]:
    """Method (its folder in configs/) → metafile."""
    return {path.parent.name: read_yaml(path) for path in sorted((ROOT / "configs").glob("*/metafile.yml"))}


def registered_name(meta: dict) -> str | None:
    """The name that ``ovseg.load`` takes, None of a method that is only trained."""
    return meta["Collections"][0]["Metadata"].get("Method")


def task(meta: dict) -> str:
    """What a method does: a key of ``SCORES``."""
    return meta["Collections"][0]["Metadata"].get("Task", SEGMENT)


def lab_rows(tables: Path, weights: str, name: str = "test_tiny.json") -> list[dict]:
    """Rows of a ``results.json`` of tools/test.py that were measured with these weights."""
    from ovseg.results.provenance import Weights

    path = tables / name
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if weights in str(Weights.parse(row["weights"]))]


def measured(tables: Path, weights: str) -> dict[str, list[dict]]:
    """``<method>_tiny`` → entries for a metafile, from the tables that were made with the weights of this hash.

    Args:
        tables: folder with ``tiny_clip.json`` (tools/benchmarks/tiny_clip.py) and those of ``TABLES`` (the
            ``results.json`` of tools/test.py); any may be absent.
        weights: hash of the embedded model; a table that names other weights is not read.
    """
    entries: dict[str, list[dict]] = {}

    def add(model: str, dataset: str, scores: dict, table: str, command: str):
        kind = TABLES.get(table, SEGMENT)
        scores = {name: round(float(value), 2) for name, value in scores.items() if name in SCORES[kind]}
        entry = {"Task": kind, "Dataset": dataset, "Metrics": scores}
        entry |= {"Protocol": EMBEDDED[kind], "Source": "measured", "Table": f"docs/tables/{table}", "Command": command}
        entries.setdefault(model, []).append(entry)

    path = tables / "tiny_clip.json"
    scenes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    for styles in STYLES if scenes and weights in scenes["weights"] else ():
        for candidates, rows in scenes["segmentation"][styles].items():
            command = f"python tools/benchmarks/tiny_clip.py --scenes {scenes['scenes']} --out docs/tables"
            for method, scores in rows.items():
                add(f"{method}_tiny", f"scenes_{styles}_{candidates}", scores, "tiny_clip.json", command)
    configs = {path.stem: path.relative_to(ROOT) for path in (ROOT / "configs").glob("*/*.py")}
    for name in TABLES:
        for row in lab_rows(tables, weights, name):
            config = configs.get(row["config"], row["config"])
            command = f"python tools/test.py {config} --benchmark {row['benchmark']}"
            add(row["config"], row["benchmark"], row["scores"], name, command)
    return entries


def with_measured(meta: dict, entries: dict[str, list[dict]]) -> dict:
    """A metafile with the measured entries behind the published ones."""
    models = [
        {**model, "Results": model.get("Results", []) + entries.get(model["Name"], [])} for model in meta["Models"]
    ]
    return {**meta, "Models": models}


def protocols(metas: dict[str, dict]) -> dict[str, str]:
    """Key → meaning: the protocols that methods share, then those of single methods."""
    meanings = read_yaml(ROOT / "docs/methods/protocols.yml")
    for meta in metas.values():
        meanings |= meta["Collections"][0].get("Protocols", {})
    return meanings


def table(header: list[str], rows: list[list]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def results_table(models: list[dict], source: str) -> str:
    """Scores of one source, a row per config, table and protocol, a column per dataset; empty if there is none."""
    rows: dict[tuple, dict] = {}
    datasets: dict[str, None] = {}
    for model in models:
        for entry in model.get("Results", []):
            if entry["Source"] == source:
                key = model["Name"], entry["Table"], entry["Protocol"]
                scores = [str(entry["Metrics"].get(name, "–")) for name in SHOWN[entry["Task"]]]
                rows.setdefault(key, {})[entry["Dataset"]] = " / ".join(scores)
                datasets[entry["Dataset"]] = None
    cells = [[f"`{name}`", whose, how, *(row.get(d, "") for d in datasets)] for (name, whose, how), row in rows.items()]
    return table(["config", "table", "protocol", *datasets], cells) if cells else ""


def settings(config: Path) -> str:
    """The method's own protocol and the changes per benchmark; of a training config its recipe."""
    from ovseg.engine.benchmarks import split_row
    from ovseg.engine.config import load_config
    from ovseg.registry import DENSE

    def words(values: dict) -> str:
        return ", ".join(f"`{name}={_plain(value)}`" for name, value in values.items()) or "as above"

    cfg = load_config(config)
    if "train_dataloader" in cfg:
        return recipe(cfg)
    own = (DENSE.get(cfg.model.dense.type).protocol if "dense" in cfg.model else {}) | cfg.model.protocol
    text = f"Settings: {words(own)}."
    rows = []
    for name, row in cfg.benchmarks.items():
        protocol, changes = split_row(row)
        rows.append([name, words(protocol | {f"{part}.{k}": v for part, c in changes.items() for k, v in c.items()})])
    return text + ("\n\n" + table(["benchmark", "published changes"], rows) if rows else "")


def recipe(cfg) -> str:
    """How a training config trains, in one line."""
    optimizer, data = dict(cfg.optim_wrapper.optimizer), cfg.train_dataloader
    name = optimizer.pop("type")
    steps = ", ".join(f"{key} {cfg.train_cfg[key]}" for key in ("max_iters", "max_epochs") if key in cfg.train_cfg)
    options = ", ".join(f"{key} {value}" for key, value in optimizer.items())
    return (
        f"Recipe: {name} ({options}), batch {data.batch_size} per process, {steps}; schedule and crops in the config."
    )


def _plain(value):
    """A config value as people write it."""
    if isinstance(value, dict):
        return "dict(" + ", ".join(f"{k}={_plain(v)}" for k, v in value.items()) + ")"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(str(_plain(v)) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else value


def lab_table(rows: list[dict]) -> str:
    """mIoU in percent, a row per config and a column per benchmark; of objects and stuff apart where there are both."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    scores_of: dict[str, dict[str, str]] = {}
    for row in rows:
        scores = row["scores"]
        parts = [scores.get(f"mIoU_{group}") for group in ("objects", "stuff")]
        apart = "" if None in parts else f" ({parts[0]:.1f} / {parts[1]:.1f})"
        scores_of.setdefault(row["config"].removesuffix("_tiny"), {})[row["benchmark"]] = f"{scores['mIoU']:.1f}{apart}"
    cells = [
        [f"[{m}](docs/methods/{m}.md)", *(of.get(b, "not yet measured") for b in benchmarks)]
        for m, of in scores_of.items()
    ]
    return table(["method", *benchmarks], cells)


def readme(rows: list[dict]) -> str:
    """README.md with the measured table between its marks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, rest = text.split("<!-- measured -->")
    return f"{head}<!-- measured -->\n{lab_table(rows)}\n<!-- /measured -->{rest.split('<!-- /measured -->')[1]}"


def command(meta: dict) -> str:
    """What to type for the picture of a page."""
    if task(meta) == PHRASES:
        return f"ovseg locate demo/scene.png {' '.join(f'-p {word}' for word in THINGS)}"
    if task(meta) == DETECT:
        return f'ovseg detect demo/scene.png -c "{", ".join(THINGS)}"'
    return f'ovseg predict demo/scene.png -c "{", ".join(WORDS)}" -m {registered_name(meta)}'


def page(name: str, meta: dict) -> str:
    """The page of one method, Markdown."""
    from ovseg.engine.config import load_config

    collection, models = meta["Collections"][0], meta["Models"]
    paper, code, kind = collection.get("Paper"), collection["Code"], task(meta)
    equation = ast.get_docstring(ast.parse((ROOT / code["File"]).read_text(encoding="utf-8")))
    links = [f"[paper]({paper['URL']})"] if paper else []
    links += [f"[`{code['File']}`](../../{code['File']})"]
    links += [f"[reference code]({code['Reference']})"] if "Reference" in code else []
    trained = "train_dataloader" in load_config(ROOT / models[0]["Config"])
    if collection["Metadata"]["Picture"]:
        image = (
            f"![{collection['Name']} on demo/scene.png](../images/methods/{name}.png)\n\nWith the embedded demo model."
        )
        usage = f"{command(meta)}\n"
    else:
        image, usage = "No picture: no trained weights that fit the embedded model are part of the package.", ""
    weights = [
        [f"[`{m['Name']}`](../../{m['Config']}){_log(m['Config'])}", m["Metadata"]["Backbone"]]
        + ["<br>".join(f"[{w['Name']}]({_link(w['Source'])}), {w['License']}" for w in m["Weights"])]
        for m in models
    ]
    published, ours = results_table(models, "paper"), results_table(models, "measured")
    names = " / ".join(SHOWN[kind])
    first = models[0]["Config"]
    usage += f"python tools/test.py {first}{' --checkpoint CHECKPOINT' if trained else USE[kind]}"
    usage += f"\npython tools/train.py {first}" if trained else ""
    commands = dict.fromkeys(e["Command"] for m in models for e in m.get("Results", []) if e["Source"] == "measured")
    listed = "\n".join(f"* {d['Difference']} {_switch(d)}" for d in collection.get("Differences", []))
    parts = [
        f"# {collection['Name']}",
        "<!-- Made by tools/docs/methods.py; do not edit. -->",
        (f"{paper['Title']} ({paper['Venue']}). " if paper else "Ours, of no paper. ") + " · ".join(links),
        image,
        f"## Equation\n\n```text\n{equation}\n```",
        f"## Use\n\n```bash\n{usage}\n```",
        table(["config", "backbone", "weights, license"], weights),
        settings(ROOT / models[0]["Config"]),
        f"## Published {names} (paper)\n\n" + (published and f"{QUOTES}\n\n{published}" or "None on these benchmarks."),
        f"## Measured by us{f' ({names}, in percent)' if kind in (PHRASES, DETECT) else ''}\n\n"
        + (f"{ours}\n\n```bash\n" + "\n".join(commands) + "\n```" if ours else "Not yet measured."),
        f"## Differences from the reference\n\n{listed or 'None known.'}",
    ]
    return "\n\n".join(parts) + "\n"


def _switch(difference: dict) -> str:
    return f"*Switch:* {difference['Switch']}" if "Switch" in difference else "*No switch.*"


def _log(config: str) -> str:
    """The log of a training run, where it lies beside the config."""
    log = Path(config).with_suffix(".log.json")
    return f" ([log](../../{log}))" if (ROOT / log).is_file() else ""


def _link(source: str) -> str:
    return source if source.startswith("http") else f"../../{source}"


def index(metas: dict[str, dict]) -> str:
    """docs/methods/README.md."""
    rows = []
    for name, meta in metas.items():
        collection = meta["Collections"][0]
        rows.append(
            [f"[{collection['Name']}]({name}.md)", collection.get("Paper", {}).get("Venue", "ours")]
            + [collection["Metadata"]["Idea"]]
            + [LOADED[task(meta)].format(name=registered_name(meta))]
            + [f"[`{name}/`](../../configs/{name})"]
        )
    glossary = table(["protocol", "meaning"], [[f"`{key}`", text] for key, text in protocols(metas).items()])
    return (
        "# Methods\n\n<!-- Made by tools/docs/methods.py; do not edit. -->\n\n"
        + table(["method", "venue", "idea", "`ovseg.load` name", "configs"], rows)
        + "\n\n## Protocols\n\nA number without its protocol means nothing; every table names one of these.\n\n"
        + glossary
        + "\n"
    )


def texts() -> dict[Path, str]:
    """Every generated text file and what it should hold."""
    from ovseg.towers import load_tower

    tables, hashes = ROOT / "docs/tables", [load_tower(name).card.hash for name in TOWERS]
    entries = {model: results for weights in hashes for model, results in measured(tables, weights).items()}
    metas = {name: with_measured(meta, entries) for name, meta in metafiles().items()}
    folder = ROOT / "docs/methods"
    files = {folder / f"{name}.md": page(name, meta) for name, meta in metas.items()}
    files |= {folder / "README.md": index(metas), ROOT / "README.md": readme(lab_rows(tables, hashes[0]))}
    imported = "".join(f"- configs/{name}/metafile.yml\n" for name in metas)
    return files | {ROOT / "model-index.yml": f"Import:\n{imported}"}


def picture(meta: dict, path: Path):
    """A method on demo/scene.png, saved with a palette small enough for ``PICTURE_BYTES``.

    Raises:
        ValueError: even 16 colors take more.
    """
    import ovseg
    from ovseg.apis.locate import Locator
    from ovseg.files import atomic_write
    from ovseg.results.draw_boxes import draw_boxes

    scene = ROOT / "demo/scene.png"
    if task(meta) == PHRASES:
        locations = Locator()(scene, THINGS)
        image = draw_boxes(locations[0].image, [each.box for each in locations], THINGS)
    elif task(meta) == DETECT:
        image = ovseg.load_detector(classes=THINGS, score_threshold=0.2)(scene).plot()
    else:
        image = ovseg.load(registered_name(meta), classes=WORDS)(scene).plot()
    for colors in (256, 128, 64, 32, 16):
        with atomic_write(path) as temporary:
            image.quantize(colors).save(temporary, "PNG", optimize=True)
        if path.stat().st_size < PICTURE_BYTES:
            return
    raise ValueError(f"{path} takes {path.stat().st_size} bytes even with 16 colors; at most {PICTURE_BYTES}.")


def stale(files: dict[Path, str]) -> list[str]:
    """Those that do not hold what they should."""
    return [
        str(path.relative_to(ROOT))
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--text", action="store_true", help="no pictures")
    parser.add_argument("--only", metavar="METHOD", help="no other picture than this method's; its folder in configs/")
    args = parser.parse_args(argv)
    metas = metafiles()
    if args.only and args.only not in metas:
        parser.error(f"no method {args.only!r}. {did_you_mean(args.only, metas)}There are: {', '.join(metas)}.")
    files = texts()
    old = stale(files)
    if args.check:
        if old:
            print(f"not up to date: {', '.join(old)}. Run python tools/docs/methods.py --text", file=sys.stderr)
        return int(bool(old))
    for path in (ROOT / name for name in old):
        path.write_text(files[path], encoding="utf-8")
    if not args.text:
        folder = ROOT / "docs/images/methods"
        folder.mkdir(parents=True, exist_ok=True)
        for name, meta in metas.items():
            if meta["Collections"][0]["Metadata"]["Picture"] and args.only in (None, name):
                picture(meta, folder / f"{name}.png")
    print(f"{len(old)} of {len(files)} text files written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
