"""One set by many builders: the same bytes, whoever wrote which shard and in what order, whoever died meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fork_server import Forked, ForkServer, fork_server
from python_path import ROOT, python_path
from small_3die import make_tar as make_object_tar
from small_3die import make_tree, same_folders, shard_3diebench
from small_images import make_folder

from pipelines.build.images import shard_images
from pipelines.sources import open_source
from shards.building import workers
from shards.building.workers import OvertakenError
from shards.engines.steps import STEP, Step, StepDone
from shards.errors import FailureError, FormatError, UsageError
from shards.layout import Layout
from shards.writer import SetBuilder

NAMES = [f"{split}/{label}/{number:02}.png" for split in ("train", "val") for label in "ab" for number in range(9)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos") / "photos", NAMES)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "set"
    build(photos, out)
    return out


def build(photos: Path, out: Path, step: Step | None = None, **options) -> None:
    token = STEP.set(step or Step())
    try:
        shard_images(open_source("folder", photos), out, samples_per_shard=2, workers=0, **options)
    finally:
        STEP.reset(token)


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    env = {**os.environ, "PYTHONPATH": python_path(ROOT, Path(__file__).parent)}
    with fork_server("slow_builds", tmp_path_factory.mktemp("builders"), env) as server:
        yield server


def start(builders: ForkServer, photos: Path, out: Path | str) -> Forked:
    return builders.start("build", [str(photos), str(out)], dict(os.environ))


def test_builders_at_once_share_the_work(photos: Path, whole: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(build, photos, tmp_path / "set") for _ in range(4)]:
            done.result()
    assert same_folders(tmp_path / "set", whole)


def test_a_stream_is_read_by_one_while_others_wait(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", objects=8, views=2)
    tar, options = make_object_tar(tree, tmp_path / "t.tar.gz"), {"size": 16, "samples_per_shard": 2, "workers": 0}
    shard_3diebench(tar, tmp_path / "whole", val_match="o3", **options)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(shard_3diebench, tar, tmp_path / "set", val_match="o3", **options)
    assert same_folders(tmp_path / "set", tmp_path / "whole")


@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_prepare_work_finish_in_any_order(photos: Path, whole: Path, tmp_path: Path, tasks: int) -> None:
    out = tmp_path / "set"
    with pytest.raises(StepDone, match="0 of 18 shards"):
        build(photos, out, Step("prepare"))
    with pytest.raises(FailureError, match=r"18 of 18 shards of .* are not written yet \(train-000000, .*work"):
        build(photos, out, Step("finish"))
    order = random.Random(0).sample(range(tasks), tasks)
    build(photos, out, Step("work", order[0], tasks))  # alone, it writes them all, and the last shard finishes the set
    assert same_folders(out, whole)
    for task in order[1:]:
        build(photos, out, Step("work", task, tasks))
    build(photos, out, Step("finish"))
    assert same_folders(out, whole)


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of workers that come within the test: it has not to wait long until they are heard of."""
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.1)


@pytest.mark.usefixtures("quick_beats")
def test_work_does_not_wait_for_what_others_are_at(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(StepDone):
        build(photos, out, Step("prepare"))
    identity = {**SetBuilderArguments.of(whole)}
    with SetBuilder(out, **identity) as other:
        assert list(other.claims(["train-000003", "val-000001"])) == ["train-000003", "val-000001"]
        with pytest.raises(StepDone, match="16 of 18 shards"):
            build(photos, out, Step("work"))
        with pytest.raises(UsageError, match=r"another build is writing .*: leave out --overwrite"):
            build(photos, out, overwrite=True)
    build(photos, out, Step("work"))
    assert same_folders(out, whole)


class SetBuilderArguments:
    """Of a finished set."""

    @staticmethod
    def of(folder: Path) -> dict:
        from shards.metadata import read_info

        info = read_info(folder)
        return {"name": info.name, "spec": info.spec, "classes": info.classes, "fingerprint": info.fingerprint}


def test_a_builder_that_is_taken_for_dead_publishes_nothing(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a machine slept: what it had claimed was written by others, and the set finished."""
    out = tmp_path / "set"
    with SetBuilder(out, **SetBuilderArguments.of(whole)) as sleeper:
        writer = sleeper.open_shard("train", 0)
        alive = sleeper.layout.tmp / workers.ALIVE
        os.utime(alive, (time.time() - 1000, time.time() - 1000))
        build(photos, out)
        assert same_folders(out, whole)
        assert sleeper.overtaken
        with pytest.raises(OvertakenError, match="another build has taken"):
            list(sleeper.claims(["train-000001"]))
        writer.abort()
    assert same_folders(out, whole)


@pytest.mark.parametrize("step", ["open_shard", "finish"])
def test_parts_that_are_removed_under_a_build_are_made_again(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As by somebody who clears up: it ended in a FileNotFoundError."""
    of_step, left = getattr(SetBuilder, step), [1]

    def removing(builder: SetBuilder, *given):
        if left and left.pop():
            shutil.rmtree(builder.layout.parts)
        return of_step(builder, *given)

    monkeypatch.setattr(SetBuilder, step, removing)
    build(photos, tmp_path / "set")
    assert same_folders(tmp_path / "set", whole)


@pytest.mark.usefixtures("quick_beats")
def test_a_worker_of_another_machine_is_waited_for(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    with SetBuilder(out, **SetBuilderArguments.of(whole)) as far:
        (far.layout.tmp / workers.ALIVE).write_bytes(b"node17/- 4711 99\n")
        assert list(far.claims(["val-000000"])) == ["val-000000"]
        with pytest.raises(StepDone, match="17 of 18"):
            build(photos, out, Step("work"))
        with SetBuilder(out, **SetBuilderArguments.of(whole)) as near:
            assert near.others_at_work(["val-000000", "train-000000"])
            monkeypatch.setattr(workers, "BEAT_SECONDS", 1000)
            time.sleep(0.3)  # it is heard of for the last time
            os.utime(far.layout.tmp / workers.ALIVE, (1, 1))
            assert not near.others_at_work(["val-000000", "train-000000"])
    build(photos, out)
    assert same_folders(out, whole)


@pytest.mark.usefixtures("quick_beats")
def test_a_shard_damaged_while_many_build_is_found_at_the_end(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with SetBuilder(out, **SetBuilderArguments.of(whole)) as other:
        list(other.claims(["val-000001"]))
        with pytest.raises(StepDone):
            build(photos, out, Step("work"))
        flipped = out / "train-000002.tar"
        flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
        with pytest.raises(StepDone, match="17 of 18"):  # it is not alone: who finishes, looks
            build(photos, out, Step("work"))
    build(photos, out)
    assert same_folders(out, whole)


def test_bad_images_of_all_builders_are_counted_together(photos: Path, tmp_path: Path) -> None:
    broken = make_folder(tmp_path / "broken", NAMES)
    for name in (NAMES[0], NAMES[-1]):
        (broken / name).write_bytes(b"")
    out = tmp_path / "set"
    with pytest.raises(FormatError, match="2 bad so far, --max-bad allows 1"):
        build(broken, out, max_bad=1)
    build(broken, out, max_bad=2)
    assert Layout(out).info.exists()


def kill_some(server: ForkServer, photos: Path, out: Path, rng: random.Random, builders: int, kills: int) -> int:
    """So many builders at once; one after the other is killed and started again. How many died with work left."""
    crowd, before_the_end = [start(server, photos, out) for _ in range(builders)], 0
    for _ in range(kills):
        time.sleep(rng.uniform(0.05, 0.3))
        number = rng.randrange(builders)
        before_the_end += not Layout(out).info.exists() and crowd[number].poll() is None
        crowd[number].kill(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        crowd[number].wait()
        crowd[number] = start(server, photos, out)
    for process in crowd:
        assert process.wait(120) == 0, process.said
        assert "Traceback" not in process.said
    return before_the_end


def test_processes_that_are_killed_and_started_again(
    builders: ForkServer, photos: Path, whole: Path, tmp_path: Path
) -> None:
    kill_some(builders, photos, tmp_path / "set", random.Random(0), builders=2, kills=2)
    assert same_folders(tmp_path / "set", whole)


@pytest.mark.slow
def test_fifty_kills_of_three_builders(builders: ForkServer, photos: Path, whole: Path, tmp_path: Path) -> None:
    rng, killed = random.Random(1), 0
    for turn in range(100):
        killed += kill_some(builders, photos, tmp_path / f"{turn}", rng, builders=3, kills=6)
        assert same_folders(tmp_path / f"{turn}", whole)
        if killed >= 50:
            return
    raise AssertionError(f"only {killed} were killed with work left")
