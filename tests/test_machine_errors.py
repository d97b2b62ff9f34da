"""No file handle left is said as that, never as a damaged or malformed file, whatever was to be read."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import seqjepa_app, seqjepa_data_app
from pipelines.archives import read_content
from pipelines.build.pool import map_in_order
from pipelines.saliency.published import open_array
from pipelines.saliency.scoring import read_fixations
from pipelines.sources.cifar100 import read_cifar100
from pipelines.sources.files import FileReader, list_files
from pipelines.sources.three_diebench.splits import find_split_lists
from pipelines.sources.three_diebench.tree import ObjectTree
from seqjepa import recipes
from seqjepa.data.decode_worker import ROW, RowError, Setup
from seqjepa.data.ring import InlineRing, WorkerRing
from seqjepa.evaluate.results import load_arrays, read_results
from seqjepa.experiments.scale import load_scale
from seqjepa.training.metrics_log import read_epochs
from shards.errors import FailureError, SeqJepaError
from shards.machine.environment import describe_error, is_environment_error, torch_out_of_memory
from shards.reading.split_index import read_stored
from shards.verify import verify


@contextlib.contextmanager
def no_handles() -> Iterator[None]:
    """No file can be opened: every number below the limit is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in taken:
            os.close(handle)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """One of each kind of file that something reads."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(png())
    with tarfile.open(tmp_path / "cat.tar", "w") as archive:
        archive.add(tmp_path / "cat", "cat")
    with zipfile.ZipFile(tmp_path / "cat.zip", "w") as archive:
        archive.write(tmp_path / "cat" / "a.png", "cat/a.png")
    (tmp_path / "cifar-100-python").mkdir()
    for name in ("train", "test", "meta"):
        (tmp_path / "cifar-100-python" / name).write_bytes(b"x")
    np.save(tmp_path / "train_images.npy", np.array(["/s/o/"]))
    np.save(tmp_path / "val_images.npy", np.array(["/s/p/"]))
    np.savez(tmp_path / "maps.npz", a=np.zeros(3))
    for name in ("f.csv", "results.json", "metrics.jsonl", "r.toml"):
        (tmp_path / name).write_text("{}\n", encoding="utf-8")
    return tmp_path


READERS: dict[str, Callable[[Path], object]] = {
    "folder": lambda at: list_files(at / "cat"),
    "tar": lambda at: list_files(at / "cat.tar"),
    "zip": lambda at: list_files(at / "cat.zip"),
    "a file in a folder": lambda at: FileReader(at / "cat").read("a.png", 0, 0),
    "a file in a tar": lambda at: FileReader(at / "cat.tar").read("cat/a.png", 1024, 70),
    "a file in a zip": lambda at: FileReader(at / "cat.zip", zipped=True).read("cat/a.png", 0, 70),
    "content": lambda at: read_content(at / "cat" / "a.png"),
    "cifar": read_cifar100,
    "tree": lambda at: ObjectTree(at).list(),
    "split lists": find_split_lists,
    "fixations": lambda at: read_fixations(at / "f.csv"),
    "array": lambda at: open_array(at / "train_images.npy"),
    "results": read_results,
    "arrays": lambda at: load_arrays(at, "maps"),
    "epochs": lambda at: read_epochs(at / "metrics.jsonl"),
    "recipe": lambda at: recipes.load_recipe(at / "r.toml"),
    "scale": lambda at: load_scale(str(at / "r.toml")),
    "stored member": lambda at: read_stored(at / "cat.tar", 0, 8, "key"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_what_it_was(files: Path, name: str) -> None:
    with no_handles(), pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what matters
        READERS[name](files)
    assert caught.value.errno == errno.EMFILE
    assert "ulimit -n" in describe_error(caught.value)


@pytest.fixture
def sound(files: Path) -> Path:
    for k in range(4):
        (files / "cat" / f"{k}.png").write_bytes(png())
    done = CliRunner().invoke(
        seqjepa_data_app, ["shard", "folder", "--source", str(files / "cat"), "--out", str(files / "set")]
    )
    assert done.exit_code == 0, done.output
    return files / "set"


def test_verify_finds_no_damage_in_a_sound_set(sound: Path) -> None:
    with no_handles(), pytest.raises(OSError, match="Too many open files"):
        verify(sound)
    assert verify(sound).ok


def test_the_limit_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100), hard))
    CliRunner().invoke(seqjepa_app, ["--version"])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_is_one_line_with_advice(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.console.raise_file_limit", lambda: None)
    runner, out = CliRunner(), sound.parent / "other"
    for app, arguments in [
        (seqjepa_data_app, ["verify", str(sound)]),
        (seqjepa_data_app, ["info", str(sound)]),
        (
            seqjepa_data_app,
            [
                "shard",
                "folder",
                "--source",
                str(sound.parent / "cat"),
                "--out",
                str(out),
                "--overwrite",
                "--workers",
                "1",
            ],
        ),
    ]:
        runner.invoke(app, arguments)  # imports what it needs
        with no_handles():
            done = runner.invoke(app, arguments)
        assert done.exit_code == 1, (arguments, done.output)
        assert done.stderr.count("\n") == 1
        assert "Too many open files" in done.stderr
        assert "ulimit -n" in done.stderr
        assert not any(word in done.output for word in ("damaged", "bad", "malformed", "not a "))
    done = runner.invoke(seqjepa_data_app, ["verify", str(sound)])
    assert done.exit_code == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_the_ring_tells_a_missing_handle_from_a_damaged_shard(sound: Path, workers: int) -> None:
    shard = next(sound.glob("*.tar"))
    setup = Setup([str(shard), str(shard.with_name("gone"))], "jpeg", 8, 8, 1, 2)
    ring = WorkerRing(setup, workers) if workers else InlineRing(setup)
    table = np.zeros(1, ROW)
    ring.put(table)  # nothing of shard 0, which is no picture
    with pytest.raises(RowError):
        ring.take()
    table["shard"] = 1
    if workers:
        pid = ring._processes._processes[0].pid  # type: ignore[union-attr]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
    with contextlib.ExitStack() as stack:
        if not workers:
            stack.enter_context(no_handles())
        ring.put(table)
        with pytest.raises(OSError, match="Too many open files"):
            ring.take()
    ring.close()


def _read(path: str) -> int:
    with no_handles(), open(path, "rb") as file:
        return len(file.read())


def test_a_pool_passes_it_on(files: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what matters
        list(map_in_order(_read, [str(files / "cat.tar")] * 2, 1, str))
    assert caught.value.errno == errno.EMFILE
    assert caught.value.filename == str(files / "cat.tar")


def test_what_is_the_machines_fault() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO, errno.ESTALE):
        assert is_environment_error(OSError(number, os.strerror(number)))
    for number in (errno.ENOENT, errno.EACCES, errno.ENAMETOOLONG, errno.EISDIR):
        assert not is_environment_error(OSError(number, os.strerror(number)))
    assert is_environment_error(MemoryError())
    assert is_environment_error(RuntimeError("Too many open files (os error 24)"))  # as safetensors says it
    assert not is_environment_error(ValueError("cut short"))
    assert not is_environment_error(OSError("image file is truncated"))


OF_CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1 GiB is free."
)
OF_THE_CPU = (
    "alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 36864000000000 bytes. 12"
)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device; free some space"),
        (OSError(errno.EFBIG, "File too large", "x"), 1, "x: File too large; a limit on the size of files (ulimit -f)"),
        (OSError(errno.EIO, "Input/output error", "x.tar"), 1, "x.tar: Input/output error; the disk or the network"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "cannot use x: Permission denied; give another"),
        (OSError(errno.EINVAL, "Invalid argument", "x"), 1, "x: Invalid argument"),
        (OSError("nothing known"), 1, "nothing known"),
        (MemoryError("Unable to allocate 4 TiB"), 1, "no memory left (Unable to allocate 4 TiB): free some memory"),
        (torch.OutOfMemoryError(OF_CUDA), 1, "the GPU has no memory left (20.00 GiB at once): choose a smaller batch"),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), 1, "the GPU has no memory left: choose a smaller"),
        (RuntimeError(OF_THE_CPU), 1, "no memory left (36864000000000 bytes at once): free some, or choose smaller"),
        (
            ImportError("libcudart.so.13: cannot open shared object file"),
            1,
            "missing: libcudart.so.13: cannot open shared",
        ),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (FailureError("as it\nis"), 1, "as it is"),
    ],
)
def test_whatever_reaches_the_command_line_is_a_line(monkeypatch, error: Exception, code: int, line: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("seqjepa.recipes.find_recipe", fail)
    done = CliRunner().invoke(seqjepa_app, ["recipes", "cat", "synth-tiny"])
    assert done.exit_code == code
    assert done.stderr.startswith("error: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert isinstance(done.exception, SystemExit) or isinstance(error, SeqJepaError)


def test_opencv_without_a_library_of_the_system_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container's image, or on a node of a cluster, whose Python has the wheel and which has no libxcb."""
    told = "raise ImportError('libxcb.so.1: cannot open shared object file: No such file or directory')"
    module = compile(told, "site-packages/cv2/__init__.py", "exec")
    monkeypatch.setattr("seqjepa.recipes.find_recipe", lambda *_: exec(module))
    done = CliRunner().invoke(seqjepa_app, ["recipes", "cat", "synth-tiny"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: a library of the system is missing: libxcb.so.1: cannot open shared object")
    assert "apt-get install libgl1 libglib2.0-0, or without root: pip uninstall -y opencv-python && " in done.stderr


def test_an_import_that_fails_otherwise_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr("seqjepa.recipes.find_recipe", fail)
    assert isinstance(CliRunner().invoke(seqjepa_app, ["recipes", "cat", "synth-tiny"]).exception, ImportError)


@pytest.mark.parametrize("sizes", [(2**62, 8), (2**45,)])
def test_torchs_own_words_for_no_memory_are_known(sizes: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(sizes)
    assert torch_out_of_memory(caught.value).startswith("no memory left")
    assert torch_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
