"""The version table: in step with the packaging files, and telling for what is or is not installed."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ovseg.compat import versions

ROOT = Path(__file__).parents[1]


def requirements(lines) -> dict[str, SpecifierSet]:
    return {r.name: r.specifier for r in map(Requirement, lines)}


def test_table_matches_pyproject():
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {"core": project["dependencies"], "mm": project["optional-dependencies"]["mm"]}
    for table, part in ((versions.TESTED, "core"), (versions.TESTED_MM, "mm")):
        ranges = requirements(asked[part])
        for name, (allowed, tested) in table.items():
            assert ranges[name] == SpecifierSet(allowed), name
            assert tested in SpecifierSet(allowed), name


def test_table_matches_requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = requirements(line for line in lines if line and not line.startswith("#"))
    for name, (_, tested) in (*versions.TESTED.items(), *versions.TESTED_MM.items()):
        assert pinned[name] == SpecifierSet(f"=={tested}"), name


def test_lowest_versions_are_the_lower_bounds():
    pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    tool = runpy.run_path(str(ROOT / "tools/lowest_versions.py"))
    lines = requirements(tool["constraints"]())
    assert set(versions.TESTED) < set(lines)
    for name, (allowed, _) in versions.TESTED.items():
        (bound,) = lines[name]
        assert bound.operator == "==" and bound.version in SpecifierSet(allowed)
        assert f">={bound.version}" in allowed.split(",")
    assert tool["lowest"]("a>=1.2,<2; python_version < '3.14'") == 'a==1.2 ; python_version < "3.14"'
    with pytest.raises(ValueError, match="'a<2' in pyproject.toml needs one lower bound, such as a>=1.0"):
        tool["lowest"]("a<2")


def report(monkeypatch, **changed) -> dict[str, versions.PackageStatus]:
    """The report as if the tested versions were installed, but for ``changed`` (None: not installed)."""
    tested = versions.TESTED | versions.TESTED_MM
    installed = {canonicalize_name(name): version for name, (_, version) in tested.items()}
    installed |= {canonicalize_name(name): value for name, value in changed.items()}
    monkeypatch.setattr(versions, "installed_version", lambda name: installed.get(canonicalize_name(name)))
    return {row.package: row for row in versions.report()}


def test_without_mm_the_core_is_complete(monkeypatch):
    newer = {"numpy": "2.4.0", "opencv-python-headless": "4.13.0.92"}
    rows = report(monkeypatch, **dict.fromkeys(versions.TESTED_MM) | newer)
    assert all(row.note.startswith("ok") for row in rows.values())
    assert 'pip install "ovseg[mm]"' in rows["ovseg[mm]"].note and "onedl-mmcv" not in rows


def test_all_as_tested(monkeypatch):
    rows = report(monkeypatch)
    assert len(rows["torch"]) == 4 and all(isinstance(cell, str) for row in rows.values() for cell in row)
    rows.pop("operators of mmcv")
    assert "onedl-mmdetection" in rows and all(row.note.startswith("ok") for row in rows.values())
    assert "2 wheels of one version" in rows["cv2"].note


@pytest.mark.parametrize(
    "changed, row, installed, note",
    [
        ({"torch": "2.14.1+cpu"}, "torch", "2.14.1+cpu", "ok"),
        ({"torch": "2.9.0"}, "torch", "2.9.0", "ok: within .*not the tested"),
        ({"torch": "2.1.0"}, "torch", "2.1.0", r'outside >=2.6: pip install "torch>=2.6"'),
        ({"timm": None}, "timm", "-", "not installed: pip install"),
        ({"opencv_python": None}, "cv2", "opencv-python-headless 4.12.0.88", "ok"),
        ({"opencv_python": "4.11.0.86"}, "cv2", ".*", "different versions.*opencv-python==.*-headless=="),
        ({"opencv_python": None, "opencv_python_headless": None}, "cv2", "-", "not installed"),
        ({"opencv_python": "5.0.0", "opencv_python_headless": "5.0.0"}, "cv2", ".*", "outside"),
        ({"mmcv": "2.1.0"}, "mmcv", "onedl-mmcv 2.3.6, mmcv 2.1.0", ".*over each other"),
    ],
)
def test_what_needs_attention(monkeypatch, changed, row, installed, note):
    found = report(monkeypatch, **changed)[row]
    assert re.fullmatch(installed.replace("+", r"\+"), found.installed) and re.match(note, found.note)


def test_the_report_imports_nothing_heavy():
    code = "import sys; from ovseg.compat import versions; versions.report(); print({'torch', 'cv2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
