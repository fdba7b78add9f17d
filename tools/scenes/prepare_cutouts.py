"""Fetch openly licensed emoji art by package name and render it into the sprite sheets of ``ovseg.datasets.scenes``.

    pip install resvg-py && python tools/scenes/prepare_cutouts.py

Needs npm (``npm pack`` downloads, nothing is installed or executed).  For each art style one PNG sheet is
written: rows of sixteen 64 px RGBA cells, in the order of ``cutouts.json``, which also keeps the source, the license
and the
attribution of every style.
"""

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.files import write_json

HERE = Path(__file__).resolve().parents[2] / "ovseg" / "datasets" / "scenes"
CELL = 64

STYLES = {
    "twemoji": ("@iconify-json/twemoji@1.2.5", "CC-BY-4.0", "Twemoji, Copyright Twitter, Inc and other contributors"),
    "fluent_flat": ("@iconify-json/fluent-emoji-flat@1.2.6", "MIT", "Fluent Emoji, Copyright Microsoft Corporation"),
    "fluent_color": ("@iconify-json/fluent-emoji@1.2.7", "MIT", "Fluent Emoji, Copyright Microsoft Corporation"),
    "fluent_3d": ("@lobehub/fluent-emoji-3d@1.1.0", "MIT", "Fluent Emoji 3D, Copyright Microsoft Corporation"),
    "emojione": ("@iconify-json/emojione@1.2.3", "CC-BY-4.0", "EmojiOne 2, Copyright EmojiOne"),
    "fxemoji": ("@iconify-json/fxemoji@1.2.2", "Apache-2.0", "Firefox OS Emoji, Copyright Mozilla Foundation"),
    "streamline": ("@iconify-json/streamline-emojis@1.2.4", "CC-BY-4.0", "Streamline Emojis, Copyright Streamline"),
    "noto": ("@iconify-json/noto@1.2.9", "Apache-2.0", "Noto Emoji, Copyright Google LLC"),
}
UNSEEN = ("noto",)


def download(package: str, folder: Path) -> tarfile.TarFile:
    """The published tarball of one npm package."""
    done = subprocess.run(
        ["npm", "pack", package, "--silent", "--pack-destination", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    return tarfile.open(folder / done.stdout.split()[-1])


def code_points(emoji: str) -> list[str]:
    """Spellings of one emoji as hexadecimal code points: in full, and without the presentation selector U+FE0F."""
    full = [f"{ord(c):x}" for c in emoji]
    bare = [c for c in full if c != "fe0f"]
    return ["-".join(full), "-".join(bare), "-".join([*bare, "fe0f"])]


def renderer(tar: tarfile.TarFile, standard_names: dict[str, str]):
    """A function from an emoji to an RGBA picture, or None where the style does not draw it.

    ``standard_names`` maps code points to icon names, for the packages that come without such a map.
    """
    names = set(tar.getnames())
    if "package/icons.json" not in names:

        def from_files(emoji):
            for code in code_points(emoji):
                member = f"package/assets/{code}.webp"
                if member in names:
                    return Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGBA")
            return None

        return from_files

    import resvg_py

    icons = json.load(tar.extractfile("package/icons.json"))
    chars = json.load(tar.extractfile("package/chars.json")) or standard_names

    def from_svg(emoji):
        for code in code_points(emoji):
            name = chars.get(code)
            name = icons.get("aliases", {}).get(name, {}).get("parent", name)
            icon = icons["icons"].get(name)
            if icon:
                size = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
                svg = (
                    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                    f'viewBox="0 0 {size[0]} {size[1]}">{icon["body"]}</svg>'
                )
                png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * CELL, height=4 * CELL))
                return Image.open(io.BytesIO(png)).convert("RGBA")
        return None

    return from_svg


def fit(picture: Image.Image) -> Image.Image:
    """Crop to the drawn part and fit it, centered, into one cell."""
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    picture = picture.crop(box)
    scale = (CELL - 2) / max(picture.size)
    size = [max(1, round(s * scale)) for s in picture.size]
    picture = Image.fromarray(np.asarray(picture)).resize(size, Image.LANCZOS)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(picture, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "cutouts", help="folder of the sheets")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    objects = json.loads((HERE / "words.json").read_text(encoding="utf-8"))["objects"]
    index = {}
    with tempfile.TemporaryDirectory() as folder:
        names_from = download(STYLES["twemoji"][0], Path(folder))
        standard_names = json.load(names_from.extractfile("package/chars.json"))
        for style, (package, license, attribution) in STYLES.items():
            draw = renderer(download(package, Path(folder)), standard_names)
            cells, classes = [], []
            for word in objects:
                for emoji in word["emoji"]:
                    picture = draw(emoji)
                    if picture is not None:
                        cells.append(fit(picture))
                        classes.append(word["name"])
            sheet = Image.new("RGBA", (CELL * 16, CELL * -(-len(cells) // 16)))
            for i, cell in enumerate(cells):
                sheet.paste(cell, (CELL * (i % 16), CELL * (i // 16)))
            sheet.save(args.out / f"{style}.png", optimize=True)
            index[style] = {
                "package": package,
                "license": license,
                "attribution": attribution,
                "unseen": style in UNSEEN,
                "classes": classes,
            }
            missing = sorted({w["name"] for w in objects} - set(classes))
            print(f"{style}: {len(cells)} cut-outs; not drawn: {', '.join(missing) or 'none'}")
    write_json(args.out / "cutouts.json", index)


if __name__ == "__main__":
    main()
