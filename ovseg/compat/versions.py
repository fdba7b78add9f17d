"""The versions ovseg is tested with and those installed, without importing anything heavy."""

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from .mmcv_ops import mmcv_ops_kind

# package: (range that pyproject.toml asks for, version that requirements.txt pins); a test keeps the three in step.
TESTED = {
    "torch": (">=2.6", "2.14.1"),
    "torchvision": (">=0.21", "0.29.1"),
    "open_clip_torch": (">=3.2,<4", "3.3.0"),
    "timm": (">=1.0.17", "1.0.31"),
    "safetensors": (">=0.4.3", "0.8.0"),
    "huggingface_hub": (">=0.24", "2.4.0"),
    "onedl-mmengine": (">=0.10.12,<0.11", "0.10.12"),
    "numpy": (">=2.0", "2.2.6"),
    "scipy": (">=1.13", "1.17.1"),
    "scikit-learn": (">=1.5", "1.9.1"),
    "scikit-image": (">=0.24", "0.26.0"),
    "opencv-python-headless": (">=4.10.0.84", "4.12.0.88"),
}
# The same of the extra ``mm``; where a package is in both, both ranges hold.
TESTED_MM = {
    "onedl-mmcv": (">=2.3.6,<2.4", "2.3.6"),
    "onedl-mmsegmentation": (">=1.4.2,<1.5", "1.4.2"),
    "onedl-mmdetection": (">=3.5.1,<3.6", "3.5.1"),
    "pycocotools": (">=2.0.7", "2.0.11"),
    "numpy": (">=2.0,<2.3", "2.2.6"),
    "opencv-python": (">=4.10.0.84,<4.13", "4.12.0.88"),
    "opencv-python-headless": (">=4.10.0.84,<4.13", "4.12.0.88"),
}

# Packages that install the same import name over each other.
RIVALS = {
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmseg": ("onedl-mmsegmentation", "mmsegmentation"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
}
CV2 = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")

MMCV_OPS = {
    "compiled": "mmcv's own are used",
    "stand-in": "ok: what MMSeg and MMDet call runs on torchvision, anything else says so",
    "none": "no stand-in yet: it comes with `import ovseg`",
    "no mmcv": "MMSeg and MMDet models need it: pip install onedl-mmcv",
}


class PackageStatus(NamedTuple):
    """One line of the report; ``note`` begins with ``ok`` if nothing needs attention."""

    package: str
    installed: str
    tested: str
    note: str


def installed_version(package: str) -> str | None:
    """The version in the package's metadata; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report() -> list[PackageStatus]:
    """One row per package, then which wheels provide cv2, conflicting packages, and the operators of mmcv."""
    own_mm = [name for name in TESTED_MM if name.startswith("onedl-")]
    with_mm = any(installed_version(name) for name in own_mm)
    asked = TESTED | (TESTED_MM if with_mm else {})
    rows = [package_row(name, *known) for name, known in asked.items() if name not in CV2]
    rows.append(cv2_row(*asked["opencv-python-headless"]))
    for name, packages in RIVALS.items():
        installed = {package: v for package in packages if (v := installed_version(package))}
        if len(installed) > 1:
            note = f"all install {name!r} over each other: pip uninstall all of them, then pip install {packages[0]}"
            rows.append(PackageStatus(name, spelled(installed), packages[0], note))
    if not with_mm:
        note = 'ok: not installed; training, benchmarks and trained models need it: pip install "ovseg[mm]"'
        return [*rows, PackageStatus("ovseg[mm]", "-", ", ".join(own_mm), note)]
    kind = mmcv_ops_kind()
    rows.append(PackageStatus("operators of mmcv", kind, "stand-in", MMCV_OPS[kind]))
    return rows


def package_row(name: str, allowed: str, tested: str) -> PackageStatus:
    installed = installed_version(name)
    if installed is None:
        return PackageStatus(name, "-", tested, f'not installed: pip install "{name}{allowed}"')
    if not SpecifierSet(allowed, prereleases=True).contains(installed):
        return PackageStatus(name, installed, tested, f'outside {allowed}: pip install "{name}{allowed}"')
    same = installed.partition("+")[0] == tested
    return PackageStatus(name, installed, tested, "ok" if same else f"ok: within {allowed}, not the tested version")


def cv2_row(allowed: str, tested: str) -> PackageStatus:
    """Wheels of the same version contain the same files, so only differing versions are a problem."""
    installed = {package: v for package in CV2 if (v := installed_version(package))}
    versions = set(installed.values())
    if not installed:
        note = f'not installed: pip install "opencv-python-headless{allowed}"'
    elif len(versions) > 1:
        pins = " ".join(f"{package}=={tested}" for package in installed)
        note = f"different versions overwrite each other: pip install --force-reinstall {pins}"
    elif not all(version in SpecifierSet(allowed) for version in versions):
        note = f'outside {allowed}: pip install "opencv-python-headless{allowed}"'
    else:
        note = "ok" if len(installed) == 1 else f"ok: {len(installed)} wheels of one version, which is harmless"
    return PackageStatus("cv2", spelled(installed) or "-", tested, note)


def spelled(versions: dict[str, str]) -> str:
    return ", ".join(f"{package} {v}" for package, v in versions.items())
