"""The command line: answers fast, says errors in one line, exits with the right code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from shards.errors import FailureError, UsageError

runner = CliRunner()
COMMANDS = [
    (cli.seqjepa_app, []),
    (cli.seqjepa_app, ["train"]),
    (cli.seqjepa_app, ["evaluate"]),
    (cli.seqjepa_app, ["demo"]),
    (cli.seqjepa_app, ["doctor"]),
    (cli.seqjepa_app, ["recipes", "ls"]),
    (cli.seqjepa_app, ["recipes", "cat"]),
    (cli.seqjepa_data_app, []),
    (cli.seqjepa_data_app, ["shard", "3diebench"]),
    (cli.seqjepa_data_app, ["synth", "3die"]),
    (cli.seqjepa_data_app, ["verify"]),
    (cli.seqjepa_data_app, ["info"]),
    (cli.seqjepa_data_app, ["preview"]),
]


@pytest.mark.parametrize(
    ("app", "words"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_help_has_an_example_for_every_command(app, words: list[str]):
    result = runner.invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    if words:
        assert "Example" in result.output or words[-1] == "ls"


def test_help_needs_no_heavy_import():
    heavy = "{'torch', 'numpy', 'pyarrow', 'cv2', 'PIL', 'matplotlib', 'pydantic'}"
    code = f"import sys, cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(cli.__file__).parent,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("error", "code"), [(UsageError("found x,\n  allowed y"), 2), (FailureError("disk\nfull"), 1)])
def test_our_errors_are_one_line_and_an_exit_code(monkeypatch, error: Exception, code: int):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "show_contents", fail)
    result = runner.invoke(cli.seqjepa_data_app, ["info", "somewhere"])
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "show_contents", fail)
    assert isinstance(runner.invoke(cli.seqjepa_data_app, ["info", "somewhere"]).exception, ZeroDivisionError)


def refused(app, *words: object) -> str:
    """Runs a command that must be refused: exit code 2, one line on stderr. Returns that line."""
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr
