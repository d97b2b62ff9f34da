"""The command line: answers fast, says errors in one line, exits with the right code."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from test_terminals import command_paths
from typer.main import get_command
from typer.testing import CliRunner

import cli
from seqjepa.recipes import GROUPS
from shards import console
from shards.errors import FailureError, UsageError, reason_of

runner = CliRunner()
APPS = {"seqjepa": cli.seqjepa_app, "seqjepa-data": cli.seqjepa_data_app}


@pytest.mark.parametrize("name", APPS)
def test_every_help_has_examples_that_fit_a_terminal_and_names_no_type_of_python(name: str):
    for words in command_paths(get_command(APPS[name])):
        result = runner.invoke(APPS[name], [*words, "--help"], prog_name=name, terminal_width=80)
        assert result.exit_code == 0, result.output
        assert "Example" in result.output, words
        assert [line for line in result.output.splitlines() if len(line) > 80] == []
        assert not re.search(r"<(str|int|float|list|[Pp]ath)|[{][A-Z]|\[\[", result.output), (
            "<int range>, RUN <path>, {RUN}"
        )


def test_an_example_that_is_folded_is_the_same_command():
    """Also where it is folded in the source; texts between quotation marks stay whole."""
    for words in (["push"], ["shard", "lerobot"], ["score-saliency"]):
        app = cli.seqjepa_app if words == ["push"] else cli.seqjepa_data_app
        wide, narrow = (runner.invoke(app, [*words, "--help"], terminal_width=columns).output for columns in (200, 60))
        assert max(map(len, narrow.splitlines())) <= 60
        calls = [
            [shlex.split(line) for line in re.sub(r" \\\n +", " ", text).splitlines() if line.startswith("    seqjepa")]
            for text in (wide, narrow)
        ]
        assert calls[0] == calls[1] != []


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (cli.seqjepa_app, []),
        (cli.seqjepa_app, ["recipes"]),
        (cli.seqjepa_data_app, []),
        *(
            (cli.seqjepa_data_app, [group])
            for group in ("shard", "build", "synth", "build-saliency", "import-saliency")
        ),
    ],
)
def test_what_a_command_does_stands_whole_in_the_list(app, words: list[str]):
    listed = runner.invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output.partition("Commands:\n")[2]
    assert listed
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_recipes_are_listed_by_data_and_found_by_words():
    everything = runner.invoke(cli.seqjepa_app, ["recipes", "ls"]).output
    heads = [line for line in everything.splitlines() if line and not line.startswith(" ")]
    assert heads == list(GROUPS.values())
    found = json.loads(runner.invoke(cli.seqjepa_app, ["recipes", "ls", "SIE", "table 11", "--json"]).output)["recipes"]
    assert [(recipe["name"], recipe["group"]) for recipe in found] == [("sie-3die-rot-hc", "3diebench")]
    nothing = runner.invoke(cli.seqjepa_app, ["recipes", "ls", "unheard-of"])
    assert nothing.exit_code == 2
    assert "no recipe holds 'unheard-of'" in nothing.output


@pytest.mark.parametrize(
    ("app", "words", "line"),
    [
        ("seqjepa", "info 'my set'", "info is a command of seqjepa-data: give `seqjepa-data info 'my set'`"),
        ("seqjepa-data", "train --shards s", "train is a command of seqjepa: give `seqjepa train --shards s`"),
        (
            "seqjepa",
            "recipes cat view-tiny",
            "there is no recipe 'view-tiny' (did you mean 'views-tiny'?); see `seqjepa r",
        ),
        ("seqjepa-data", "info .", "set (it has no _meta/dataset.json); sets in it: one, two"),
        ("seqjepa-data", "info one", "set (it has no _meta/dataset.json); `seqjepa-data shard` makes one of images"),
        ("seqjepa", "embed . --images . -o a.npy", "directory (no readable run.json); runs in it: three"),
    ],
)
def test_what_was_meant_is_named(app: str, words: str, line: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("one/_meta/dataset.json", "two/_meta/dataset.json", "three/run.json"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    if words == "info one":
        Path("one/_meta/dataset.json").unlink()
    result = runner.invoke(APPS[app], shlex.split(words))
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert len(result.stderr) < 160, "one line of a terminal, or two"


def test_warnings_are_said_as_everywhere_and_name_their_module_only_if_asked(monkeypatch, capsys, request):
    request.addfinalizer(partial(logging.root.setLevel, logging.root.level))
    for verbose, line in ((False, "warning: torn\n"), (True, "warning seqjepa.x: torn\n")):
        monkeypatch.setattr(logging.root, "handlers", [])
        cli.set_up_logging(verbose)
        logging.getLogger("seqjepa.x").warning("torn")
        assert capsys.readouterr().err == line


def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path):
    result = runner.invoke(cli.seqjepa_app, ["report", "--csv", str(tmp_path / ("x" * 300 + ".csv"))])
    assert result.exit_code == 2
    assert "File name too long" in result.output
    assert result.output.count("\n") < 4
    assert "Traceback" not in result.output


@pytest.mark.parametrize("written", ["--csv=~/t.csv", "~/t.csv", "'~'/t.csv"])
def test_a_tilde_is_the_home_folder_also_where_no_shell_says_so(written: str, tmp_path: Path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    words = [written] if written.startswith("--") else ["--csv", written]
    result = runner.invoke(cli.seqjepa_app, ["report", *words])
    assert (home / "t.csv").exists() == (not written.startswith("'")), result.output
    assert not (here / "~").exists()


@pytest.mark.parametrize(
    ("words", "named"), [(["--source", ""], "--source"), (["--source="], "--source"), ([""], "an argument")]
)
def test_a_variable_that_is_not_set_is_not_the_folder_one_stands_in(words: list[str], named: str, tmp_path: Path):
    """Path("") is "."."""
    (tmp_path / "here/cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "here/cat/1.png")
    command = [sys.executable, "-c", "import cli; cli.seqjepa_data_app()", "shard", "folder", *words]
    done = subprocess.run([*command, "--out", "../out"], cwd=tmp_path / "here", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {named} is empty; is a variable of the shell not set?\n")
    assert not (tmp_path / "out").exists()


def test_what_only_has_a_tilde_in_it_stays(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    expected = {
        "3diebench=~/shards": "3diebench=/home/me/shards",
        "model.pretrained=~/w.pt": "model.pretrained=/home/me/w.pt",
        "~": "/home/me",
    }
    same = ["a~", "~x", "a/~/b", "--out=a~/b", "notes=about ~/x", "", "a\n~/b"]
    assert {word: console._at_home(word) for word in [*expected, *same]} == expected | {word: word for word in same}


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
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "show_contents", fail)
    result = runner.invoke(cli.seqjepa_data_app, ["info", "somewhere"])
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "show_contents", stop)
    result = runner.invoke(cli.seqjepa_data_app, ["info", "somewhere"])
    assert result.exit_code == 130
    assert "same command" in result.stderr


def test_a_recipe_is_shown_with_its_row_and_can_be_read_back(tmp_path: Path):
    from seqjepa.recipes import load_recipe

    result = runner.invoke(cli.seqjepa_app, ["recipes", "cat", "3die-noact-M3"])
    assert result.exit_code == 0
    assert result.output.startswith("# Table")
    (tmp_path / "mine.toml").write_text(result.output)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("3die-noact-M3")


BAD = [
    (cli.seqjepa_app, "train", "--shards", "nowhere", "--recipe", "3die-rot-M3"),
    (cli.seqjepa_app, "train", "--shards", "nowhere", "--recipe", "no-such-recipe"),
    (cli.seqjepa_app, "train", "--shards", "nowhere", "--recipe", "3die-rot-M3", "--set", "optim.lrr=1"),
    (cli.seqjepa_app, "train", "--shards", "nowhere", "--recipe", "3die-rot-M3", "--device", "tpu"),
    (cli.seqjepa_app, "train", "--shards", ".", "--recipe", "3die-rot-M3", "--cache-size", "plenty"),
    (cli.seqjepa_app, "train", "--shards", "s4://bucket/set", "--recipe", "3die-rot-M3"),
    (cli.seqjepa_app, "evaluate", "nowhere", "--shards", "nowhere"),
    (cli.seqjepa_data_app, "verify", "nowhere"),
    (cli.seqjepa_data_app, "info", "nowhere"),
    (cli.seqjepa_data_app, "preview", "nowhere"),
    (cli.seqjepa_data_app, "shard", "3diebench", "--source", "nowhere", "--out", "out"),
    (cli.seqjepa_data_app, "synth", "3die", "--out", "out", "--families", "0"),
]


@pytest.mark.parametrize(("app", "words"), [(app, words) for app, *words in BAD], ids=lambda v: "")
def test_bad_input_is_one_line_and_writes_nothing(app, words: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(app, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (cli.seqjepa_data_app, ["shard", "folder", "--source", ".", "--source=cats", "--out", "set"]),
        (cli.seqjepa_data_app, ["build-saliency", "folder", "--source", ".", "-o", "maps", "--out", "set"]),
        (cli.seqjepa_app, ["train", "--shards", ".", "--shards", "cats"]),
    ],
)
def test_two_folders_for_one_option_are_refused(app, words: list[str]):
    result = runner.invoke(app, words)
    assert result.exit_code == 2
    assert "times, and one is taken; leave out the others" in result.stderr


@pytest.mark.parametrize("words", [["--val-draws", "1001"], ["--probe-epochs", "1000001"]])
def test_work_without_end_is_refused(words: list[str]):
    result = runner.invoke(cli.seqjepa_app, ["evaluate", "nowhere", "--shards", "nowhere", *words])
    assert result.exit_code == 2
    assert f"Invalid value for '{words[0]}'" in result.output


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "show_contents", fail)
    assert isinstance(runner.invoke(cli.seqjepa_data_app, ["info", "somewhere"]).exception, ZeroDivisionError)


def refused(app, *words: object) -> str:
    """Runs a command that must be refused: exit code 2, one line on stderr. Returns that line."""
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(("asked", "given"), [(None, None), (0, 0), (16, 16), (17, 16), (1000, 16), (10**30, 16)])
def test_workers_are_bounded_and_that_is_said(monkeypatch, capsys, asked: int | None, given: int | None):
    monkeypatch.setattr(console, "usable_cores", lambda: 2)
    assert console.bounded_workers(asked) == given
    said = f"--workers {asked}: this machine has 2 usable cores; going on with 16 workers\n"
    assert capsys.readouterr().err == ("" if asked == given else said)
    monkeypatch.setattr(console, "usable_cores", lambda: 64)
    assert console.bounded_workers(256) == 256


def test_every_command_bounds_its_workers(tmp_path: Path):
    for app, words in [(cli.seqjepa_app, ["train", "--recipe", "synth-tiny"]), (cli.seqjepa_data_app, ["bake"])]:
        shards = ["--shards", str(tmp_path / "none")] if words[0] == "train" else [str(tmp_path / "none")]
        more = [] if words[0] == "train" else ["--out", str(tmp_path / "out"), "--sequences", "1"]
        result = runner.invoke(app, [*words, *shards, *more, "--workers", "100000"])
        assert result.exit_code == 2
        assert "--workers 100000: this machine has" in result.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EOFError(), "EOFError"),
        (ValueError("two\n  lines"), "two lines"),
        (RuntimeError("Weights only load failed. Re-running with weights_only=False …"), "it holds other things than"),
        (ValueError("Object arrays cannot be loaded when allow_pickle=False"), "it holds other things than"),
    ],
)
def test_reasons_are_one_line_and_advise_nothing_unsafe(error: Exception, said: str):
    assert reason_of(error).startswith(said)
    assert "=False" not in reason_of(error)
