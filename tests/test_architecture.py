"""Imports run one way and in no circle, `shards` is light, and the wheel holds what git holds."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from our_code import CODE, PACKAGES, ROOT, modules_of, nodes_of, packages_of

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

# A folder, and a file beside folders, imports what stands before it: the machine, what is read, how it is made …
ORDER = {
    "shards": """
        errors json_fields machine extras
        actions schema layout tar pixels vectors saliency_map stats kinds sample index metadata
        stores reading reader vector_reader describe verify
        building writer engines preview console push
    """,
    "pipelines": "archives sources build get saliency synth commands",
    "seqjepa": """
        shadowing plugins files devices compiling cuda_graphs precision paper
        data config recipes losses feature_metrics models methods
        training released sequences evaluate
        hub model report push
        embedding export experiments
        commands doctor __main__
    """,
}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        assert packages_of(path) & FORBIDDEN[package] == ALLOWED.get(path, set()), path


def test_shards_imports_no_torch_and_is_light() -> None:
    names = [name for name in modules() if name.startswith("shards.")]
    code = f"import sys, {', '.join(names)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "torchvision", "webdataset", "pyarrow", "cv2", "PIL", "simplejpeg", "datasets"}


def test_published_maps_are_taken_over_without_torch() -> None:
    """Each worker imports the module, and torch would be most of its time."""
    code = "import sys, pipelines.saliency.published; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_torchvision_is_imported_by_those_who_build_networks() -> None:
    """It brings torch's compiler: a third of the time in which a list of runs or a report begins."""
    at_once = [
        path.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchvision"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("torchvision") for alias in node.names))
    ]
    assert set(at_once) == {"state_dict.py"}


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
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in CODE}


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Our modules that a file imports anywhere: at the top, inside functions, or for type checking."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= modules_of(node)
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    submodules = {name for name in found if name in known}
    # `from package import module` needs the module, not what else the package's __init__ hands on.
    return {name for name in submodules if not any(other.startswith(f"{name}.") for other in submodules)}


@functools.cache
def arrows() -> list[tuple[str, str]]:
    """(module, a module of ours that it imports), all of them."""
    known = modules()
    return [(name, other) for name, path in known.items() for other in imported_modules(path, known) - {name}]


def circles(needs: dict[str, set[str]]) -> set[str]:
    """What is left when all that needs nothing (any more) is taken away, again and again."""
    left = dict(needs)
    while free := [name for name, wanted in left.items() if not wanted & set(left)]:
        for name in free:
            del left[name]
    return set(left)


def test_there_is_no_import_circle() -> None:
    needs: dict[str, set[str]] = {name: set() for name in modules()}
    for name, other in arrows():
        needs[name].add(other)
    assert not circles(needs), "these modules import each other in circles"


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_what_stands_before_them(package: str) -> None:
    order = ORDER[package].split()
    assert sorted(order) == sorted({name.split(".")[1] for name in modules() if name.startswith(f"{package}.")})
    place = {f"{package}.{name}": number for number, name in enumerate(order)}
    within = [(a, b) for a, b in arrows() if a.startswith(f"{package}.") and b.startswith(f"{package}.")]
    upwards = [f"{a} → {b}" for a, b in within if place[inside(package, b)] > place[inside(package, a)]]
    assert len(within) > len(order)
    assert not upwards


def inside(folder: str, module: str) -> str:
    """What of `folder` a module within it is, or is in."""
    return ".".join(module.split(".")[: folder.count(".") + 2])


def test_folders_within_folders_have_an_order() -> None:
    for folder in {name.rpartition(".")[0] for name in modules() if name.count(".") > 1}:
        needs: dict[str, set[str]] = {}
        for name, other in arrows():
            if name.startswith(f"{folder}.") and other.startswith(f"{folder}."):
                needs.setdefault(inside(folder, name), set()).add(inside(folder, other))
        needs = {name: wanted - {name} for name, wanted in needs.items()}
        assert not circles(needs), f"what is in {folder} imports each other in circles"
