"""Every optional import names an extra that there is, and is missed in one line."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from our_code import CODE, PACKAGES, ROOT, nodes_of, packages_of

from shards.errors import UsageError
from shards.extras import EXTRAS, missing, missing_line

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
OURS = {"cli", *PACKAGES}
OF_THEIR_OWN = {"deepgaze_pytorch", "clip", "einops"}  # pipelines/saliency/deepgaze_package.py has a line for each way
BROUGHT = {"click": "typer", "markupsafe": "jinja2", "pydantic_core": "pydantic"}  # modules that come with a package
QUIET = {"sklearn"}  # without it trustworthiness is left out of results; umap-learn brings it


def plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~@ ;]", requirement)[0]).lower()


def installed_by(extra: str) -> set[str]:
    """Packages that an extra installs, through the extras that it names."""
    found = set()
    for line in OPTIONAL[extra]:
        if inner := re.fullmatch(r"seqjepa\[([a-z,]+)\]", line):
            found |= set().union(*(installed_by(name) for name in inner[1].split(",")))
        else:
            found.add(plain(line))
    return found


@functools.cache
def known() -> Mapping[str, list[str]]:
    """Module → the installed packages that have it."""
    return packages_distributions()


@functools.cache
def third_party() -> dict[str, list[Path]]:
    """Module → the files of ours that import it."""
    found: dict[str, list[Path]] = {}
    for path in CODE:
        for name in packages_of(path) - OURS - set(sys.stdlib_module_names):
            found.setdefault(name, []).append(path.relative_to(ROOT))
    return found


def test_an_import_is_of_the_base_or_of_an_extra() -> None:
    base = {plain(line) for line in PROJECT["dependencies"]}
    strangers = {}
    for module, paths in third_party().items():
        packages = {plain(name) for name in known().get(module, [])} | {BROUGHT.get(module, "")}
        if not packages & base and module not in EXTRAS and module not in OF_THEIR_OWN:
            strangers[module] = paths
    assert {"torch", "av", "huggingface_hub"} <= set(third_party())
    assert strangers == {}, "neither in dependencies nor in shards/extras.py"


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_installs_the_package(module: str) -> None:
    package, extra = EXTRAS[module]
    wanted = {"PyAV": "av"}.get(package, package)
    assert plain(wanted) in installed_by(extra)
    if module in known():
        assert plain(wanted) in {plain(name) for name in known()[module]}


def test_every_module_of_an_extra_is_missed_by_the_one_helper() -> None:
    """Of the files that import it one, at least, asks shards/extras.py for the line."""
    text = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in CODE}
    asking = {path for path, code in text.items() if re.search(r"\bmissing(_line)?\(", code)}
    users = third_party()
    assert {name for name in EXTRAS if name in users and not asking & set(users[name])} - QUIET == set()
    named = re.findall(r"""\bmissing(?:_line)?\(\s*["'](\w+)["']""", "\n".join(text.values()))
    assert {"av", "huggingface_hub", "umap"} <= set(named) <= set(EXTRAS)


def test_extras_are_not_told_in_other_words() -> None:
    """Texts of ours that name an extra come from shards/extras.py."""
    found = [
        str(path.relative_to(ROOT))
        for path in CODE
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"pip install[^\n]*(seqjepa|\.)\[\w+\]", node.value)
    ]
    assert set(found) <= {"shards/extras.py"}


def test_all_is_everything_but_saliency_and_what_developers_need() -> None:
    users = set(OPTIONAL) - {"all", "umap", "saliency", "docs", "dev", "tools"}
    assert installed_by("all") == set().union(*(installed_by(extra) for extra in users))
    assert installed_by("umap") == installed_by("report")


def test_the_page_lists_what_each_extra_installs() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\| ([^|]+) \|$", text, re.MULTILINE)
    assert {extra for extra, _ in rows} == set(OPTIONAL) - {"umap", "all", "docs", "dev", "tools"}
    for extra, named in rows:
        assert {plain(name) for name in re.sub(r" \([^)]*\)", "", named).split(", ")} == installed_by(extra), extra


def test_one_line() -> None:
    error = missing("av", "reading videos")
    assert isinstance(error, UsageError)
    assert str(error) == "reading videos needs PyAV, which is not installed: pip install 'seqjepa[video]'"
    assert missing_line("wandb") == "wandb is not installed: pip install 'seqjepa[log]'"


def test_what_the_line_says_works_from_any_folder(tmp_path: Path) -> None:
    """pip takes the seqjepa that is installed, and asks no registry for one; what it needs is looked for later."""
    asked = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--dry-run", "-q", "seqjepa[video]"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
