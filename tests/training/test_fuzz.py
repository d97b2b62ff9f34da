"""A thousand damages to every file that a command reads: no traceback, no hang, and what is accepted is what it was."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import mutate
from noise_shards import noise_shards
from train_helpers import make_saliency_shards, metrics, tiny_config

from seqjepa import files
from seqjepa.evaluate.checkpoints import numbers_of
from seqjepa.evaluate.results import format_table, load_arrays, read_results, save_arrays
from seqjepa.evaluate.run import evaluate_run
from seqjepa.report.figures import build_figures
from seqjepa.report.render.html import render_report
from seqjepa.report.runs import read_records
from seqjepa.report.tables import build_tables
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.describe import describe_set
from shards.errors import SeqJepaError
from shards.reader import ShardSet
from shards.schema import ViewSpec
from shards.verify import verify

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 60
TWO_EPOCHS = ("optim.epochs=2", "train.checkpoint_minutes=1e-9")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("fuzz") / "set")


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained and evaluated, with a checkpoint at every step."""
    out = tmp_path_factory.mktemp("fuzz") / "run"
    train(tiny_config(*TWO_EPOCHS), shards, out, workers=0, progress=False)
    for untrained in (False, True):
        evaluate_run(
            out, shards, device="cpu", untrained=untrained, m_val=(1,), probe_epochs=1, agg_draws=1, progress=False
        )
    save_arrays(out / "evaluation" / "trained", "umap", {"points": torch.rand(9, 2).numpy()})
    return out


@contextmanager
def no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(work: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> tuple[Any, str]:
    """What `work` returns, "" where it was refused; and what was said."""
    files._warn.cache_clear()
    caplog.clear()
    with no_hang(), caplog.at_level(logging.WARNING):
        try:
            return work(), " ".join(line for line in caplog.messages if "finished already" not in line)
        except SeqJepaError as error:
            line = str(error)
            assert "\n" not in line, line
            assert "()" not in line, line
            assert "weights_only" not in line, line
            assert ".tmp-" not in line, line
            assert len(line) < 3000, line
            return "", line


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


def weights_of(run: Path) -> str:
    loaded = load_run(run)
    return digest(loaded.method.state_dict()) + repr(loaded.data) + loaded.config.model_dump_json()


def resumed(run: Path, shards: Path) -> str:
    train(tiny_config(*TWO_EPOCHS), shards, run, workers=0, progress=False)
    return weights_of(run) + json.dumps(metrics(run))


def reported(run: Path) -> str:
    found = read_records([run])
    render_report(found, build_tables(found), build_figures(found))
    format_table(read_results(run))
    numbers_of(run, "trained", {"probe_epochs": 1})
    load_arrays(run / "evaluation" / "trained", "umap")
    return repr([(record.epochs, record.config, record.identity) for record in found])


def damaged(whole: Path, copy: Path, file: str, times: int, works: list[Callable[[Path], Any]], caplog) -> None:
    """Damage `file` so many times; each of `works` must give what it gives on the whole, or say something."""

    def fresh() -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        return Path(shutil.copytree(whole, copy))

    right, faults = [work(fresh()) for work in works], []
    for number in range(times):
        for work, wanted in zip(works, right, strict=True):
            what = mutate(fresh() / file, random.Random(f"{file} {number}"))
            if (copy / file).read_bytes() == (whole / file).read_bytes():
                continue
            try:
                found, said = answer(lambda work=work: work(copy), caplog)
            except Exception as error:  # every fault is told, not only the first
                frame = traceback.extract_tb(error.__traceback__)[-1]
                faults.append(f"{number} {what} {work.__name__}: {error!r:.300} {frame.filename}:{frame.lineno}")
                continue
            if not said and found != wanted:
                faults.append(f"{number} {what} {work.__name__}: accepted in silence")
    assert not faults, "\n".join(faults)


RUN_FILES = {
    "config.toml": 140, "run.json": 120, "metrics.jsonl": 70, "state.pt": 70, "state-previous.pt": 20,
    "model.safetensors": 80, "SHA256SUMS": 50, "results.json": 150, "evaluation/trained/umap.npz": 20,
}  # fmt: skip
NUMBERS = ("results.json", "evaluation/trained/umap.npz")
"""Read by reports alone, and without checksums: other numbers that a metric can have are taken for edited ones."""
SET_FILES = {"_meta/dataset.json": 120, "_meta/index-train.parquet": 80, "train-000000.tar": 60, "README.md": 20}


@pytest.mark.slow
@pytest.mark.parametrize("file", RUN_FILES)
def test_damage_to_files_of_a_run(run: Path, shards: Path, tmp_path: Path, caplog, file: str) -> None:
    def go_on(copy: Path) -> str:
        return resumed(copy, shards)

    works = [reported] if file in NUMBERS else [weights_of, reported, go_on]
    damaged(run, tmp_path / "copy", file, RUN_FILES[file], works, caplog)


def pixels_of(folder: Path) -> str:
    """Every pixel, label and parameter. What checksums alone can find, `verify` finds."""
    opened = ShardSet.open(folder)
    describe_set(folder)
    report = verify(folder)
    if not report.ok:
        assert all("\n" not in problem for problem in report.problems)
        logging.getLogger("fuzz").warning("%s", report.problems[0])
    digest = hashlib.sha256()
    for split in opened.splits:
        index: Any = opened.split(split) if isinstance(opened.info.spec, ViewSpec) else opened.images(split)
        digest.update(repr((index.keys, index.labels.tolist(), index.fingerprint())).encode())
    return digest.hexdigest()


def learned(folder: Path) -> str:
    whole = tiny_config(
        "optim.epochs=1", *(["data.patch=8", "data.action=position"] if "images" in str(folder) else [])
    )
    out = folder.with_name("learned")
    shutil.rmtree(out, ignore_errors=True)
    report = verify(folder)
    if not report.ok:
        logging.getLogger("fuzz").warning("%s", report.problems[0])
    train(whole, folder, out, workers=0, progress=False)
    return weights_of(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["views", "images"])
@pytest.mark.parametrize("file", SET_FILES)
def test_damage_to_files_of_a_set(shards: Path, tmp_path: Path, caplog, file: str, kind: str) -> None:
    whole = shards if kind == "views" else make_saliency_shards(tmp_path / "whole", splits=("train",))
    damaged(whole, tmp_path / kind, file, SET_FILES[file] // 2, [pixels_of, learned], caplog)
