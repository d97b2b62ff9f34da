"""Imports run one way, `shards` is light, and the wheel holds what git holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shards", "pipelines", "seqjepa")
FORBIDDEN = {
    "shards": {"pipelines", "seqjepa", "cli", "torch", "torchvision", "webdataset"},
    "pipelines": {"seqjepa", "cli"},
    "seqjepa": {"pipelines", "cli"},
}
DEMOS = ROOT / "seqjepa" / "experiments" / "demos.py"


def imports_of(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        allowed = {"pipelines"} if path == DEMOS else set()
        assert not imports_of(path) & (FORBIDDEN[package] - allowed), path


def test_shards_imports_no_torch_and_is_light() -> None:
    names = [f"shards.{p.stem}" for p in (ROOT / "shards").glob("*.py") if p.stem != "__init__"]
    code = f"import sys, {', '.join(names)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchvision", "webdataset", "pyarrow", "cv2", "PIL", "simplejpeg", "datasets"}


def git_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_wheel_holds_what_git_holds(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    files = git_files()
    for name in files:
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", tmp_path, tmp_path / "source"], check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = {name for name in files if name == "cli.py" or name.split("/")[0] in PACKAGES}
    assert {name for name in inside if name.endswith(".py")} == {name for name in ours if name.endswith(".py")}
    data = {name for name in ours if name.endswith((".toml", ".csv", ".sh"))}
    assert data <= inside
    assert inside <= ours
