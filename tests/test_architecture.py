"""Imports run one way and in no circle, `shards` is light, and the wheel holds what git holds."""

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
ALLOWED = {
    ROOT / "seqjepa" / "experiments" / "demos.py": {"pipelines"},
    # It starts both commands: `python -m seqjepa` looks here alone, and no other package's cli.py comes before it.
    ROOT / "seqjepa" / "__main__.py": {"cli"},
}


def imports_of(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {arg.value.split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        assert imports_of(path) & FORBIDDEN[package] == ALLOWED.get(path, set()), path


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


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    paths = [ROOT / "cli.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Our modules that a file imports anywhere: at the top, inside functions, or for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    submodules = {name for name in found if name in known}
    # `from package import module` needs the module, not what else the package's __init__ hands on.
    return {name for name in submodules if not any(other.startswith(f"{name}.") for other in submodules)}


def test_there_is_no_import_circle() -> None:
    known = modules()
    left = {name: imported_modules(path, known) - {name} for name, path in known.items()}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"these modules import each other in circles: {sorted(left)}"
