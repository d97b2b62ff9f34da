"""The public names: cheap to import, typed, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import seqjepa

ROOT = Path(__file__).resolve().parents[1]


def loaded_by(code: str) -> set[str]:
    """Names of modules that `code` brings beside those of Python's own start."""
    code = f"import sys; before = set(sys.modules); {code}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_brings_no_other_module_before_it_is_asked() -> None:
    standard = set(sys.stdlib_module_names)
    foreign = {name for name in loaded_by("import seqjepa; dir(seqjepa)") if name.partition(".")[0] not in standard}
    assert foreign == {"seqjepa"}


def test_every_public_name_is_there_and_nothing_else() -> None:
    assert set(seqjepa.__all__) <= set(dir(seqjepa))
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; it offers: load, "):
        seqjepa.lode  # noqa: B018


@pytest.mark.parametrize("name", seqjepa.__all__)
def test_a_public_name_is_typed_and_documented(name: str) -> None:
    function = getattr(seqjepa, name)
    hints = typing.get_type_hints(function)
    assert {"return", *inspect.signature(function).parameters} == set(hints)
    assert len(inspect.getdoc(function) or "") > 100
    assert f"`seqjepa.{name}`" in (ROOT / "docs" / "python.md").read_text()
    assert (ROOT / "seqjepa" / "py.typed").exists()
