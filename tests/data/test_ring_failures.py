"""What goes wrong around the worker processes: damage, death, and a trainer that is killed."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from loaders import stored_loader

from seqjepa.data import decode_worker
from seqjepa.data.decode_worker import ROW, RowError, ShardFiles, decode_rows
from seqjepa.data.loader import Loader
from shards.errors import DamageError, FailureError

ROOT = Path(__file__).resolve().parents[2]


def open_loader(index, workers: int) -> Loader:
    return stored_loader(index, views=6, action="rotation", batch_size=4, seed=0, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_jpeg_is_named_and_the_rest_stays_readable(build_index, overwrite_bytes, workers):
    index = build_index()
    overwrite_bytes(index.shard_paths[1], int(index.offsets[9, 2]), b"\0" * int(index.lengths[9, 2]))
    good, damaged = 0, []
    with open_loader(index, workers) as loader:
        for step in range(len(loader)):
            try:
                good += len(next(loader.epoch(0, step)))
            except DamageError as error:
                damaged.append(str(error))
    assert good == 23 - 4 or good == 23 - 3
    assert len(damaged) == 1
    for part in (str(index.shard_paths[1]), "view 2 of sample 'object-009'", "seqjepa-data verify"):
        assert part in damaged[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_was_cut_after_opening_is_named(build_index, workers):
    index = build_index()
    os.truncate(index.shard_paths[2], int(index.offsets[20, 0]))
    with (
        open_loader(index, workers) as loader,
        pytest.raises(DamageError, match=r"train-000002\.tar: view .* \(the shard ends at byte"),
    ):
        list(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_shrinks_while_it_is_read_is_named(build_index, workers):
    """A map of it would end whoever reads, with SIGBUS."""
    index = build_index()
    with open_loader(index, workers) as loader:
        list(loader.epoch(0))
        for path in index.shard_paths:
            os.truncate(path, 0)
        with pytest.raises(DamageError, match=r"view .* \(the shard ends at byte 0"):
            list(loader.epoch(2))


def test_the_row_that_the_shard_does_not_reach_is_the_one_that_failed(tmp_path):
    import simplejpeg

    data = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "s").write_bytes(data)
    table = np.array([(0, len(data), 0)] * 2 + [(9, len(data), 0)], ROW)
    with pytest.raises(RowError, match="the shard ends at byte") as caught:
        decode_rows(table, np.zeros((3, 16, 16, 3), np.uint8), ShardFiles([str(tmp_path / "s")]), "jpeg")
    assert caught.value.row == 2


def test_a_shard_that_vanished_is_named(build_index):
    index = build_index()
    index.shard_paths[0].unlink()
    with open_loader(index, 1) as loader, pytest.raises(DamageError, match=r"train-000000\.tar.*No such file"):
        list(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_raw_set_that_is_made_anew_gives_no_pixels_under_the_labels_of_before(build_index, workers):
    index, other = build_index(encoding="raw"), build_index(encoding="raw", seed=1)
    folder, anew = index.shard_paths[0].parent, other.shard_paths[0].parent
    info = folder / "_meta/dataset.json"
    same = info.read_bytes()
    with open_loader(index, workers) as loader:
        info.unlink()
        info.write_bytes(same)
        next(loader.epoch(0))
    with open_loader(index, workers) as loader:
        info.unlink()  # as --overwrite begins
        for name in ("_meta", *(path.name for path in index.shard_paths), "_meta/dataset.json"):
            with pytest.raises(DamageError, match=r"train-00000\d\.tar: .*the set was made anew while it was read"):
                next(loader.epoch(0))
            if (anew / name).is_file():
                os.replace(anew / name, folder / name)
        with pytest.raises(DamageError, match="the set was made anew"):
            next(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_raw_set_that_was_made_anew_before_it_is_read_is_named(build_index, workers):
    index, other = build_index(encoding="raw"), build_index(encoding="raw", seed=1)
    folder, anew = index.shard_paths[0].parent, other.shard_paths[0].parent
    for name in ("_meta/dataset.json", *(path.name for path in index.shard_paths)):
        os.replace(anew / name, folder / name)
    with pytest.raises(DamageError, match="the set was made anew while it was read"):
        open_loader(index, workers)


def test_a_read_asks_the_system_for_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "s").write_bytes(bytes(8))
    files = ShardFiles([str(tmp_path / "s")])
    files.read(0, 0, 8)
    asked = []
    monkeypatch.setattr(os, "fstat", lambda fd, fstat=os.fstat: asked.append(fd) or fstat(fd))
    assert files.read(0, 0, 8) == bytes(8)
    assert not asked
    with pytest.raises(ValueError, match="the shard ends at byte 8, the index wants 9"):
        files.read(0, 1, 8)
    assert asked


def test_a_jpeg_of_another_size_is_damage(tmp_path):
    import simplejpeg

    data = simplejpeg.encode_jpeg(np.zeros((8, 24, 3), np.uint8))
    (tmp_path / "s").write_bytes(data)
    table = np.array([(0, len(data), 0)], ROW)
    with pytest.raises(RowError, match="the image is 8 × 24, the set's are 16 × 16"):
        decode_rows(table, np.zeros((1, 16, 16, 3), np.uint8), ShardFiles([str(tmp_path / "s")]), "jpeg")


def test_only_so_many_files_stay_open(tmp_path):
    paths = [tmp_path / str(i) for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 10)
    before = len(os.listdir("/proc/self/fd"))
    files = ShardFiles([str(p) for p in paths], limit=2)
    for i in (0, 1, 0, 2, 3, 0, 4, 4):
        assert files.read(i, 0, 10) == bytes([i]) * 10
        assert len(files) <= 2
    del files
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_that_are_open_when_python_ends_are_closed_in_silence():
    script = "import os\nfrom seqjepa.data.decode_worker import ShardFiles\nkept = ShardFiles([os.devnull])\n"
    script += "try: kept.read(0, 0, 1)\nexcept ValueError: print(len(kept))\nos.kept = kept"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("1\n", "")


@pytest.mark.parametrize("killed", [1, 2])
def test_a_killed_worker_is_an_error_with_its_signal_and_not_a_hang(build_index, killed):
    with open_loader(build_index(), 2) as loader:
        batches = loader.epoch(0)
        next(batches)
        # Who is not killed is stopped: else it may do all the rest, and an idle worker's death harms nobody.
        for number, pid in enumerate(worker_pids(os.getpid())):
            os.kill(pid, signal.SIGKILL if number < killed else signal.SIGSTOP)
        with pytest.raises(FailureError, match=r"decode worker died .* SIGKILL \(exit code -9\).*out-of-memory"):
            list(batches)
        assert worker_pids(os.getpid()) == []
        assert len(list(loader.epoch(0))) == 6  # a new ring


def test_workers_leave_it_to_the_trainer_to_stop(build_index):
    """Slurm sends SIGTERM to every process of a job; the trainer still needs batches until it has saved."""
    with open_loader(build_index(), 2) as loader:
        batches = loader.epoch(0)
        next(batches)
        for pid in worker_pids(os.getpid()):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert len(list(batches)) == 5


def test_workers_end_when_the_trainer_is_killed(build_index, tmp_path):
    index = build_index()
    script = """
        import sys, time
        from seqjepa.data.decode_ahead import Reading
        from seqjepa.data.loader import Loader
        from seqjepa.data.sampling import Sampling
        from seqjepa.data.stored import StoredViews
        from shards.reader import ShardSet
        index = ShardSet.open(sys.argv[1]).split("train")
        loader = Loader(index, StoredViews("rotation"), Sampling(4, 4, 0), Reading(workers=2))
        next(loader.epoch(0))
        print(*(w.pid for w in loader._source._ahead._ring._processes._processes), flush=True)
        time.sleep(60)
    """
    trainer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(index.shard_paths[0].parent)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    with trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_running(pid) for pid in pids)
        trainer.kill()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in pids)


def test_a_dropped_loader_leaves_no_worker(build_index):
    loader = open_loader(build_index(), 2)
    next(loader.epoch(0))
    assert len(worker_pids(os.getpid())) == 2
    del loader
    assert worker_pids(os.getpid()) == []


def test_without_memfd_an_unlinked_file_serves(build_index, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "ring"))
    (tmp_path / "ring").mkdir()
    with open_loader(build_index(), 1) as loader:
        assert sum(len(batch) for batch in loader.epoch(0)) == 23
        assert list((tmp_path / "ring").iterdir()) == []


def test_too_many_processes_or_too_little_memory_is_one_line(build_index, monkeypatch):
    real, started = subprocess.Popen, []

    def refuse_the_second(*args, **kwargs):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(real(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", refuse_the_second)
    with (
        open_loader(build_index(), 2) as loader,
        pytest.raises(
            FailureError,
            match=r"cannot start 2 decode workers with 0 MiB of shared memory .Resource temporarily unavailable",
        ),
    ):
        next(loader.epoch(0))
    assert started[0].poll() is not None


def test_a_worker_imports_nothing_heavy():
    tree = ast.parse(Path(decode_worker.__file__).read_text())
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "simplejpeg"}


def worker_pids(parent: int) -> list[int]:
    """Children of a process that run the decode worker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"decode_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
