"""Every call of ours that a page shows is one that the command line takes. Nothing is run."""

from __future__ import annotations

from typing import Any

import docs_text
import pytest
import typer

import cli

APPS = {
    "seqjepa": typer.main.get_command(cli.seqjepa_app),
    "seqjepa-data": typer.main.get_command(cli.seqjepa_data_app),
}
UsageError = typer.BadParameter.__mro__[1]  # click's, or that of the copy of click that newer typers hold
LINES, INLINE = docs_text.command_lines(), docs_text.inline_calls()


def complaint(call: str) -> tuple[str, str]:
    """What the command line says to a call: the mistake by click's name, and the message; "" twice: none."""
    command, *rest = docs_text.arguments(call)
    found: Any = APPS[command]
    while hasattr(found, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        if name not in found.commands:
            return "NoSuchCommand", f"{command} has no command {name!r}"
        found = found.commands[name]
    if not hasattr(found, "commands"):
        try:
            found.make_context(command, rest)
        except UsageError as error:
            return type(error).__name__, str(error)
    return "", ""


def test_there_are_lines_to_parse() -> None:
    pages = {str(call.page) for call in LINES}
    assert len(LINES) > 70
    assert len(INLINE) > 20
    assert {"README.md", "docs/training.md", "docs/evaluation.md", "docs/images.md"} <= pages
    assert {"docs/saccades.md", "docs/notebooks/first_run.ipynb", "docs/notebooks/world_model.ipynb"} <= pages


@pytest.mark.parametrize("call", LINES, ids=str)
def test_a_line_parses(call: docs_text.Shown) -> None:
    """Of a line with "…" words are left out."""
    mistake, message = complaint(call.text)
    assert mistake in ("", "MissingParameter" if "…" in call.text else ""), f"{call.text}: {message}"


def helps() -> list[tuple[str, str]]:
    """Every command with its help, as ("seqjepa train", text)."""
    found, waiting = [], list(APPS.items())
    while waiting:
        name, command = waiting.pop()
        found.append((name, command.help or ""))
        waiting += [(f"{name} {sub}", inner) for sub, inner in getattr(command, "commands", {}).items()]
    return found


def test_examples_in_helps_parse() -> None:
    examples = [(name, call) for name, text in helps() for call in docs_text.calls_in(text)]
    assert len(examples) > 30
    mistakes = {call: complaint(call) for _, call in examples}
    assert {call: what for call, what in mistakes.items() if what[0] not in ("", "MissingParameter")} == {}
    assert [call for call, what in mistakes.items() if what[0] and "…" not in call] == []


@pytest.mark.parametrize("call", INLINE, ids=str)
def test_what_the_text_mentions_exists(call: docs_text.Shown) -> None:
    """Values are placeholders there, and much is left out."""
    mistake, message = complaint(call.text)
    assert mistake in ("", "MissingParameter", "BadParameter", "BadOptionUsage"), f"{call.text}: {message}"


@pytest.mark.parametrize(
    ("call", "mistake"),
    [
        ("seqjepa trian --shards S", "NoSuchCommand"),
        ("seqjepa-data shard moon --source S --out O", "NoSuchCommand"),
        ("seqjepa train --shards S --reciep 3die-rot-M3", "NoSuchOption"),
        ("seqjepa-data shard stl10 --source S --out O --val-fraction 0.1", "NoSuchOption"),
        ("seqjepa evaluate RUN OTHER --shards S", "UsageError"),
        ("seqjepa evaluate RUN --shards S --probe-epochs many", "BadParameter"),
        ("seqjepa evaluate RUN --shards S", ""),
    ],
)
def test_mistakes_are_found(call: str, mistake: str) -> None:
    assert complaint(call)[0] == mistake


def test_the_page_on_where_data_is_to_be_had_names_what_imports_it() -> None:
    importers = [name for app in APPS.values() for name in app.commands if name.startswith("import-")]  # type: ignore[attr-defined]
    page = (docs_text.ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert len(importers) == 3
    assert [name for name in importers if name not in page] == []
