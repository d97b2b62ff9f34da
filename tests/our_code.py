"""The syntax of all code of ours, which takes seconds to parse: once for every test of a process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shards", "pipelines", "seqjepa")
CODE = [ROOT / "cli.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """A file's imports, calls and texts, and what texts are put together of, anywhere in it."""
    wanted = ast.Import, ast.ImportFrom, ast.Call, ast.Constant, ast.JoinedStr, ast.BinOp
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, wanted)]


def modules_of(node: ast.AST) -> set[str]:
    """What a node imports, as it is written: by a statement, import_module or find_spec."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        return {node.module or ""}
    if isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in ("import_module", "find_spec"):
            return {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return set()


def packages_of(path: Path) -> set[str]:
    """The first part of the name of everything that a file imports."""
    return {name.split(".")[0] for node in nodes_of(path) for name in modules_of(node)}
