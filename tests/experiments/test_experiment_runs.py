"""An experiment from shards to its tables and curves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiment_lab import experiment_scale
from noise_shards import noise_shards
from typer.testing import CliRunner

import cli
from seqjepa.experiments.experiment import METHODS, Experiment
from seqjepa.experiments.experiment_results import Results, Row, experiment_results, with_numbers
from seqjepa.experiments.experiment_table import as_text, notes, tables
from seqjepa.training.checkpoint import load_run
from shards.errors import UsageError

NAME = "paper-small"
ONLY = ("name=seq_jepa,simclr,M1", "part=methods,causes")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("experiment") / "shards", train=24)


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(experiment_scale(tmp_path_factory.mktemp("scale")))


def sweep(shards: Path, scale: str, out: Path, *more: str) -> tuple[int, str, str]:
    only = [word for text in ONLY for word in ("--only", text)]
    given = ["sweep", NAME, "--shards", f"3diebench={shards}", "--scale", scale, "--out", str(out), "--workers", "0"]
    done = CliRunner().invoke(cli.seqjepa_app, [*given, *only, *more])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def ran(shards: Path, scale: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One seed of all that ONLY says, and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    code, stdout, stderr = sweep(shards, scale, out, "--seeds", "1", "--run", "--device", "cpu")
    assert code == 0, stdout + stderr
    return out, stdout


def numbers(out: Path, run: str, epoch: int = 0) -> dict[str, Any]:
    folder = out / run / (f"evaluation/checkpoints/epoch-{epoch:06d}" if epoch else "")
    return json.loads((folder / "results.json").read_text())["trained"]


def rows(shards: Path, scale: str, out: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    code, stdout, _ = sweep(shards, scale, out, "--seeds", "1", "--json")
    assert code == 0
    listed = json.loads(stdout)["results"]["rows"]
    return {(row["name"], row["schedule_length"], row["length"]): row for row in listed}


def test_rows_are_what_the_runs_say(ran: tuple[Path, str], shards: Path, scale: str) -> None:
    out, _ = ran
    found = rows(shards, scale, out)
    assert list(found) == [
        *(("seq_jepa", 1, 1), ("seq_jepa", 2, 1), ("seq_jepa", 2, 2)),
        *(("simclr", 2, 1), ("simclr", 2, 2), ("M1", 2, 2)),
    ]
    epochs = json.loads((out / "simclr-test-x2-seed42" / "run.json").read_text())["finished_epochs"]
    (kept,) = load_run(out / "seq_jepa-test-x2-seed42").config.train.keep_epochs
    for (name, planned, length), row in found.items():
        epoch = 0 if length == planned else epochs // 2 if name == "simclr" else kept
        result = numbers(out, f"{name}-test-x{planned}-seed42", epoch)
        assert (row["seeds"], row["std"]) == ([42], {})
        for key, there in (("top1_z", "top1_z"), ("r2_rel", "r2_rel_rot_avg"), ("r2_indiv", "r2_indiv_rot_avg")):
            assert row["mean"][key] == row["by_seed"]["42"][key] == result[there]
        if name == "seq_jepa":
            assert row["mean"]["top1_agg.2"] == result["top1_agg"]["2"]
            assert row["mean"]["mrr"] == result["retrieval"]["mrr"]
    assert {key: row["finished"] for key, row in found.items() if not row["finished"]} == {("seq_jepa", 2, 1): False}
    base, change = found["seq_jepa", 2, 2], found["M1", 2, 2]
    assert change["difference"]["mean"]["r2_rel"] == change["mean"]["r2_rel"] - base["mean"]["r2_rel"]


def test_the_tables_say_the_same_and_each_number_once(ran: tuple[Path, str], shards: Path, scale: str) -> None:
    out, printed = ran
    experiment = Experiment(NAME, shards, 1, scale, only=ONLY)
    results = experiment_results(experiment, out)
    assert printed.rstrip().endswith(as_text(results))
    by_title = dict(tables(results))
    methods = by_title["Methods over lengths of training"]
    assert [line[:3] for line in methods[1:]] == [
        ("seq_jepa", "12", "cosine"),
        ("seq_jepa", "24", "cosine"),
        ("simclr", "12", "constant"),
        ("simclr", "24", "constant"),
        ("(untrained)", "0", "–"),
    ]
    assert all(len(line) == len(table[0]) for table in by_title.values() for line in table)
    mean = {(row.name, row.length): row for row in results.methods}["simclr", 2]
    assert f"{mean.mean['r2_rel']:.3f}" in methods[4]
    (_, base, change) = by_title["Causes: one change, and the difference to seq_jepa"]
    assert (base[0], change[0]) == ("seq_jepa", "M1")
    assert [line[1:3] for line in by_title["Length of the schedule and length of training, cosine"][1:]] == [
        ("1 × 12", "12"),
        ("2 × 12", "12"),
        ("2 × 12", "24"),
    ]
    code, markdown, _ = sweep(shards, scale, out, "--seeds", "1", "--markdown")
    assert code == 0
    assert "| " + " | ".join(methods[3]) + " |" in markdown.splitlines()
    assert "missing" not in markdown


def test_the_untrained_row_is_the_base_where_all_runs_were_evaluated_untrained(
    shards: Path, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def numbers_of(run: Path, weights: str, *_: object) -> dict[str, Any] | None:
        measured.extend([run.name] if weights == "untrained" else [])
        return {"top1_z": float(len(measured))} if weights == "untrained" else None

    monkeypatch.setattr("seqjepa.experiments.experiment_results.numbers_of", numbers_of)
    initial = experiment_results(Experiment(NAME, shards, 2, scale, untrained=True, only=ONLY), tmp_path).untrained
    assert initial is not None
    assert initial.name == "seq_jepa"
    of_base = {42: 1.0, 43: 1.0 + measured.index("seq_jepa-test-x1-seed43")}
    assert initial.by_seed == {seed: {"top1_z": value} for seed, value in of_base.items()}
    assert len(measured) > 2 * len(of_base)


def test_means_deviations_and_paired_differences_over_seeds() -> None:
    """By hand: 0.5 and 0.7 have a standard deviation of the sample of 0.2 / √2."""
    base = row_of({42: {"r2_rel": 0.5}, 43: {"r2_rel": 0.7}, 44: {"r2_rel": 0.1}})
    change = row_of({42: {"r2_rel": 0.6, "mrr": 0.2}, 43: {"r2_rel": 0.9}})
    assert change.mean == pytest.approx({"r2_rel": 0.75})  # what every seed has
    assert change.std == pytest.approx({"r2_rel": 0.3 / 2**0.5})
    less = change.less(base)
    assert less.seeds == [42, 43]
    assert less.by_seed[42] == pytest.approx({"r2_rel": 0.1})
    assert (less.mean["r2_rel"], less.std["r2_rel"]) == pytest.approx((0.15, 0.1 / 2**0.5))
    assert row_of({42: {"r2_rel": 0.5}}).std == {}


def test_the_order_of_methods_is_that_of_every_seed_or_it_is_said(shards: Path) -> None:
    experiment = Experiment(NAME, shards)
    last = [
        replace(row_of(scores), part=METHODS, name=name, length=16)
        for name, scores in (
            ("sie", {42: {"r2_rel": 0.5, "top1_z": 0.1}, 43: {"r2_rel": 0.6, "top1_z": 0.3}}),
            ("sen", {42: {"r2_rel": 0.7, "top1_z": 0.2}, 43: {"r2_rel": 0.8, "top1_z": 0.2}}),
        )
    ]
    early = replace(last[0], length=1, by_seed={42: {"r2_rel": 0.9, "top1_z": 0.9}})
    results = Results(experiment, [early, *last], None)
    assert results.order("r2_rel") == {42: ["sen", "sie"], 43: ["sen", "sie"]}
    assert results.order("top1_z") == {42: ["sen", "sie"], 43: ["sie", "sen"]}
    said = notes(results)
    assert "R² rel after 4,800 steps, the same order with every seed: sen > sie" in said
    assert any("another order with other seeds: seed 42: sen > sie; seed 43: sie > sen" in line for line in said)
    byol = replace(last[0], name="byol", by_seed={42: {"r2_rel": 0.6}})  # whatever only some seeds have tells nothing
    assert [line for line in notes(Results(experiment, [*last, byol], None)) if "R² rel" in line] == [
        "R² rel after 4,800 steps, the same order with every seed: sen > sie"
    ]
    alone = [replace(last[0], by_seed={42: {"r2_rel": 0.5}}), replace(last[1], by_seed={43: {"r2_rel": 0.5}}), byol]
    assert not any("order with" in line for line in notes(Results(experiment, alone, None)))


def test_changes_at_several_lengths_are_compared_with_the_base_of_theirs(shards: Path, tmp_path: Path) -> None:
    scale = tmp_path / f"{NAME}.toml"
    scale.write_text(f'extends = "{NAME}"\n[experiment]\nchanged_at = [4, 16]\n')
    at = {
        length: [
            replace(row_of({42: {"r2_rel": base}}), part=METHODS, name="seq_jepa", length=length, steps=1200 * length),
            replace(row_of({42: {"r2_rel": changed}}), name="M1", length=length, steps=1200 * length),
        ]
        for length, base, changed in ((4, 0.125, 0.25), (16, 0.5, 0.375))
    }
    results = Results(Experiment(NAME, shards, scale=str(scale)), [*at[16], *at[4]], None)
    found = [row["difference"]["mean"]["r2_rel"] for row in results.as_json()["rows"] if row["part"] == "causes"]
    assert found == [-0.125, 0.125]
    (table,) = [table for title, table in tables(results) if title.startswith("Causes")]
    assert [line[:2] for line in table[1:]] == [
        ("seq_jepa", "4,800"), ("M1", "4,800"), ("seq_jepa", "19,200"), ("M1", "19,200")
    ]  # fmt: skip
    assert [line[-2] for line in table[1:]] == ["", "+0.125", "", "-0.125"]


def row_of(by_seed: dict[int, dict[str, float]]) -> Row:
    return Row("causes", "x", 4, 4800, "cosine", 4, True, by_seed, ())


def test_a_second_call_does_nothing(ran: tuple[Path, str], shards: Path, scale: str) -> None:
    out, _ = ran
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    code, _, said = sweep(shards, scale, out, "--seeds", "1", "--run", "--json", "--device", "cpu")
    assert code == 0
    assert "train " not in said
    assert "to go" not in said
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_lost_numbers_of_weights_on_the_way_are_measured_again(ran: tuple[Path, str], shards: Path, scale: str) -> None:
    out, _ = ran
    folder = next((out / "simclr-test-x2-seed42" / "evaluation" / "checkpoints").iterdir())
    right = json.loads((folder / "results.json").read_text())["trained"]
    (folder / "results.json").unlink()
    code, stdout, _ = sweep(shards, scale, out, "--seeds", "1", "--json")
    states = {run["name"]: run["state"] for run in json.loads(stdout)["runs"]}
    assert [name for name, state in states.items() if state != "evaluated"] == ["simclr-test-x2-seed42"]
    assert states["simclr-test-x2-seed42"] == "trained"
    code, _, said = sweep(shards, scale, out, "--seeds", "1", "--run", "--json", "--device", "cpu")
    assert code == 0
    assert said.count("evaluate the") == 1
    again = json.loads((folder / "results.json").read_text())["trained"]
    assert (again["top1_z"], again["r2_rel_rot_avg"]) == (right["top1_z"], right["r2_rel_rot_avg"])


@pytest.mark.parametrize(
    ("ending", "begins"), [("svg", b"<?xml"), pytest.param("pdf", b"%PDF", marks=pytest.mark.slow)]
)
def test_curves_are_drawn(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path, ending: str, begins: bytes
) -> None:
    file = tmp_path / f"curves.{ending}"
    code, stdout, _ = sweep(shards, scale, ran[0], "--seeds", "1", "--plot", str(file))
    assert code == 0, stdout
    assert file.read_bytes().startswith(begins)
    if ending == "svg":
        assert "R² of relative rotation" in file.read_text() or "<use" in file.read_text()


def test_curves_take_the_place_of_those_before_and_of_nothing_else(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path
) -> None:
    file, begins = tmp_path / "curves.png", b"\x89PNG"
    for _ in range(2):
        assert sweep(shards, scale, ran[0], "--seeds", "1", "--plot", str(file))[0] == 0
    file.write_bytes(begins + b" of somebody's own")
    code, _, said = sweep(shards, scale, ran[0], "--seeds", "1", "--plot", str(file))
    assert code == 2
    assert "was not made by seqjepa sweep" in said
    assert file.read_bytes() == begins + b" of somebody's own"


def test_options_that_are_of_something_else_are_refused(shards: Path, tmp_path: Path) -> None:
    for table, more, said in (
        ("table-6", ["--only", "seed=42"], "--only: these options are only for paper-small"),
        (NAME, ["--vary", "optim.lr=1"], "--vary: the settings of a table's runs are fixed"),
        (NAME, ["--plot", str(tmp_path / "x.gif")], "give a file that ends in .png, .svg, .pdf"),
        (NAME, ["--plot", str(tmp_path / "x.png")], "no run is evaluated yet"),
        (NAME, ["--run", "--plot", str(tmp_path / "x.gif")], "give a file that ends in .png, .svg, .pdf"),
        (NAME, ["--run", "--plot", str(tmp_path / "none" / "x.png")], "none is not a folder; make it"),
        (NAME, ["--run", "--plot", "s3://bucket/x.png"], "--plot s3://bucket/x.png: this command writes to a folder"),
        (NAME, ["--run", "--numbers", str(tmp_path / "none.json")], "is not what `seqjepa sweep paper-small"),
        (NAME, ["--json", "--markdown"], "give one of them"),
    ):
        done = CliRunner().invoke(
            cli.seqjepa_app, ["sweep", table, "--shards", f"3diebench={shards}", "--out", str(tmp_path / "no"), *more]
        )
        assert done.exit_code == 2, done.output
        assert said in done.output
        assert not (tmp_path / "no").exists()  # nothing was trained before it was said


def elsewhere(shards: Path, scale: str, out: Path, to: Path) -> dict[str, Any]:
    """What --json prints there, as if with seed 43 and simclr's numbers raised; saved to a file."""
    code, stdout, _ = sweep(shards, scale, out, "--seeds", "1", "--json")
    found = json.loads(stdout)
    assert code == 0
    for row in found["results"]["rows"]:
        row["by_seed"] = {"43": {key: value + 1 for key, value in row["by_seed"]["42"].items()}}
    to.write_text(json.dumps(found))
    return found


def test_numbers_of_another_machine_are_added_seed_by_seed(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path
) -> None:
    out, _ = ran
    there = elsewhere(shards, scale, out, tmp_path / "there.json")
    here = rows(shards, scale, out)
    code, stdout, _ = sweep(shards, scale, out, "--seeds", "1", "--json", "--numbers", str(tmp_path / "there.json"))
    assert code == 0
    joined = json.loads(stdout)["results"]
    assert [row["name"] for row in joined["rows"]] == [name for name, _, _ in here]
    for row in joined["rows"]:
        mine = here[row["name"], row["schedule_length"], row["length"]]["mean"]
        assert row["seeds"] == [42, 43]
        assert row["mean"]["top1_z"] == pytest.approx(mine["top1_z"] + 0.5)
        assert row["std"]["top1_z"] == pytest.approx(0.5**0.5)
    assert set(joined["orders"]["r2_rel"]) == {"42", "43"}

    # Alone, or twice, they are the same rows, and a picture, where no run is.
    code, stdout, _ = sweep(
        shards,
        scale,
        tmp_path / "none",
        "--json",
        *("--numbers", str(tmp_path / "there.json")) * 2,
        "--plot",
        str(tmp_path / "curves.svg"),
    )
    assert code == 0
    alone = json.loads(stdout)["results"]["rows"]
    assert [(r["mean"], r["runs"]) for r in alone] == [(r["mean"], r["runs"]) for r in _means(there)]
    assert (tmp_path / "curves.svg").stat().st_size > 5000


def test_numbers_of_runs_that_end_sooner_count_where_there_is_no_longer_one(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path
) -> None:
    """Of a constant learning rate, which is a finished run at any length."""
    out, there = ran[0], tmp_path / "there.json"
    found = elsewhere(shards, scale, out, there)
    first, last = (row for row in found["results"]["rows"] if row["name"] == "simclr")
    short = {**first, "schedule_length": 1, "by_seed": {"44": first["by_seed"]["43"]}}
    for given, seeds in (
        ([short], {1: [44]}),
        ([short, last], {1: [44], 2: [43]}),
        ([short, first], {1: [43, 44]}),  # it trains alike for as long
    ):
        there.write_text(json.dumps({"results": {**found["results"], "rows": given}}))
        experiment = Experiment(NAME, shards, 1, scale, only=ONLY)
        joined = with_numbers(experiment_results(experiment, tmp_path / "none"), [there])
        assert {row.length: row.seeds for row in joined.methods} == seeds
        assert len(joined.as_json()["rows"]) == len(given)  # nothing is lost for those who read them


def test_seeds_of_shorter_runs_count_beside_those_of_longer_ones_that_train_alike(shards: Path, scale: str) -> None:
    """Not of a method whose τ rises to 1 at its end, nor where the warm-up is of another length."""

    def row(name: str, length: int, ends: int, *seeds: int) -> Row:
        return Row(METHODS, name, length, 12 * length, "constant", ends, True, {s: {"r2_rel": ends} for s in seeds}, ())

    experiment = Experiment(NAME, shards, 1, scale, only=ONLY)
    for name, rows, expected in (
        ("simclr", [row("simclr", 1, 1, 42, 44), row("simclr", 1, 2, 42, 43)], {42: 2, 43: 2, 44: 1}),
        ("seq_jepa-author", [row("seq_jepa-author", 1, 1, 44), row("seq_jepa-author", 1, 2, 42)], {42: 2}),
        ("simclr", [row("simclr", 2, 2, 44), row("simclr", 1, 3, 42), row("simclr", 2, 3, 42)], {42: 3}),
    ):
        found = Results(experiment, rows, None).finished[-1]
        assert found.name == name
        assert {seed: scores["r2_rel"] for seed, scores in found.by_seed.items()} == expected


def test_numbers_of_changes_at_other_lengths_are_taken(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path
) -> None:
    out, there = ran[0], tmp_path / "there.json"
    found = elsewhere(shards, scale, out, there)
    experiment = Experiment(NAME, shards, 1, scale, only=ONLY)
    (run,) = (run for run, _ in experiment.every.values() if run.name == "M1")
    (change,) = (row for row in found["results"]["rows"] if row["name"] == "M1")
    change |= {"length": 1, "schedule_length": 1, "steps": experiment.steps_of(run, 1)}
    there.write_text(json.dumps({"results": {**found["results"], "rows": [change]}}))
    joined = with_numbers(experiment_results(experiment, out), [there])
    assert [(row.length, row.seeds) for row in joined.changes("causes")] == [(1, [43]), (2, [42])]


def _means(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"mean": row["by_seed"]["43"], "runs": row["runs"]} for row in found["results"]["rows"]]


def _changed(text: str, *places: str | int, to: Any) -> str:
    """JSON with another value at one place."""
    found = inner = json.loads(text)
    for place in places[:-1]:
        inner = inner[place]
    inner[places[-1]] = to
    return json.dumps(found)


def test_numbers_of_another_experiment_are_refused(
    ran: tuple[Path, str], shards: Path, scale: str, tmp_path: Path
) -> None:
    there = tmp_path / "there.json"
    elsewhere(shards, scale, ran[0], there)
    text, row = there.read_text(), ("results", "rows", 0)
    here = experiment_results(Experiment(NAME, shards, 1, scale, only=ONLY), ran[0])
    for content, said in (
        (_changed(text, *row, "steps", to=13), "after 13 steps"),
        (_changed(text, "results", "evaluation", "probe_epochs", to=77), "'probe_epochs': 77"),
        (_changed(text, "results", "rows", to=None), "is not what"),
        (_changed(text, "results", to=[]), "is not what"),
        (_changed(text, *row, to="row"), "is not what"),
        (_changed(text, *row, "part", to=["methods"]), "part must be a str"),
        (_changed(text, *row, "steps", to="25"), "steps must be a int"),
        (_changed(text, *row, "runs", to=[1]), "runs must be strings"),
        (_changed(text, *row, "by_seed", to={}), "by_seed holds no seed"),
        (_changed(text, *row, "by_seed", to={"one": {}}), "'one' is no seed"),
        (_changed(text, *row, "by_seed", "43", "top1_z", to="high"), "scores must be numbers"),
        ("[" * 100_000, "nested too deeply"),
    ):
        there.write_text(content)
        with pytest.raises(UsageError) as refused:
            with_numbers(here, [there])
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    code, _, stderr = sweep(shards, scale, ran[0], "--numbers", str(there))
    assert (code, len(stderr.strip().splitlines())) == (2, 1)
    assert said in stderr
