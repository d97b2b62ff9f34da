"""Another project's module, or a folder of data, under one of our plain names is said in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from python_path import python_path

ROOT = Path(__file__).resolve().parents[1]
START = "import sys; from seqjepa.__main__ import seqjepa, seqjepa_data; sys.exit({}())"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules as a wheel puts them: a folder on the path, and nothing else that could find them."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(ROOT / "cli.py", folder)
    for package in ("shards", "pipelines", "seqjepa"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def start(code: str, *arguments: str, path: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    # The editable install's finder would go on to find our submodules: take it out, as after a plain `pip install`.
    plain = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in repr(f)]; " + code
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", plain, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.parametrize("name", ["cli", "shards", "pipelines"])
@pytest.mark.parametrize("form", ["module", "package", "folder"])
def test_each_is_named(installed: Path, tmp_path: Path, name: str, form: str) -> None:
    if form == "module":
        wrong = tmp_path / f"{name}.py"
        wrong.write_text("raise SystemExit('somebody else ran')", encoding="utf-8")
    else:
        (tmp_path / name).mkdir()
        wrong = tmp_path / name
        if form == "package":
            wrong = wrong / "__init__.py"
            wrong.write_text("raise SystemExit('somebody else ran')", encoding="utf-8")
    for command in ("seqjepa", "seqjepa_data"):
        done = start(START.format(command), "--help", path=[tmp_path, installed], cwd=tmp_path)
        if form == "folder":  # a mere folder gives way to what comes later on the path
            assert done.returncode == 0
            continue
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: Python finds {wrong} as {name!r}, not that of {installed}")


def test_a_folder_of_data_before_an_editable_install(installed: Path, tmp_path: Path) -> None:
    """Its finder comes last, so that even a folder without __init__.py hides ours."""
    (tmp_path / "shards").mkdir()
    (installed.parent / "half").mkdir(exist_ok=True)
    for name in ("cli.py", "pipelines", "seqjepa"):
        link = installed.parent / "half" / name
        if not link.exists():
            link.symlink_to(installed / name)
    for code in ("from cli import seqjepa_app", START.format("seqjepa")):
        done = start(code, "--help", path=[tmp_path, installed.parent / "half"], cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: Python finds {tmp_path / 'shards'} as 'shards'")


def test_doctor_has_a_finding_for_each(tmp_path: Path) -> None:
    """As far as it can start: here beside ours, whose submodules the editable install's finder still finds."""
    (tmp_path / "own").mkdir()
    code = (
        "import json, sys, types, importlib.machinery as m; import seqjepa.doctor as doctor; "
        "other = types.ModuleType('pipelines'); "
        "other.__spec__ = m.ModuleSpec('pipelines', None, origin='/elsewhere/pipelines/__init__.py'); "
        "other.__spec__.has_location = True; sys.modules['pipelines'] = other; "
        "print(json.dumps([vars(f) for f in doctor.check_packages()]))"
    )
    done = start(code, path=[ROOT], cwd=tmp_path)
    (finding,) = json.loads(done.stdout)
    assert finding["status"] == "fail"
    assert finding["name"] == "Module pipelines"
    assert finding["found"].startswith("/elsewhere/pipelines/__init__.py, not this project's")
    assert "PYTHONPATH" in finding["advice"]


def test_as_a_module(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run(
        [sys.executable, "-m", "seqjepa", "recipes", "ls"], cwd=tmp_path, env=env, capture_output=True, check=True
    )
    assert b"synth-tiny" in done.stdout
