"""`seqjepa doctor`: is this machine ready? Each check is one function that returns one Finding."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from seqjepa.shadowing import ADVICE, HERE, OURS, strangers
from shards.extras import OPENCV_LIBRARIES, SYSTEM_LIBRARY

Status = Literal["ok", "warn", "fail"]
GIB = 1024**3
MINIMUM_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` says what to do and is empty when nothing needs doing."""

    name: str
    status: Status
    found: str
    advice: str = ""


def check_python() -> Finding:
    found = sys.version.split()[0]
    if tuple(sys.version_info[:2]) < MINIMUM_PYTHON:
        return Finding("Python", "fail", found, "install Python 3.11 or newer")
    return Finding("Python", "ok", f"{found} ({sys.executable})")


def check_packages() -> list[Finding]:
    """Whether what Python imports under our plain names is ours; one finding for each that is not."""
    wrong = [
        Finding(f"Module {name}", "fail", f"{path}, not this project's ({HERE})", ADVICE)
        for name, path in strangers().items()
    ]
    return wrong or [Finding("Modules", "ok", f"{', '.join(OURS)} of {HERE}")]


def check_torch() -> Finding:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
    except Exception as error:  # a broken wheel raises OSError, RuntimeError or ImportError
        advice = "pip install -c constraints.txt torch torchvision (torchvision's wheel needs the CUDA build)"
        return Finding("PyTorch", "fail", f"{type(error).__name__}: {first_line(error)}", advice)
    versions = f"torch {torch.__version__}, torchvision {metadata.version('torchvision')}"
    return Finding("PyTorch", "ok", versions)


def check_gpu() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except Exception:
        return Finding("GPU", "warn", "not looked at: torch does not import")
    if not torch.cuda.is_available():
        advice = "training runs on the CPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
        return Finding("GPU", "warn", "none visible to torch", advice)
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = "; ".join(f"{card.name}, {card.total_memory / GIB:.0f} GiB" for card in cards)
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("GPU", "warn", found, "no bf16 here but imitated: train with --set train.precision='fp32'")
    return Finding("GPU", "ok", found)


def check_opencv() -> Finding:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        cure = OPENCV_LIBRARIES if SYSTEM_LIBRARY in str(error) else "pip install opencv-python"
        return Finding("OpenCV", "fail", first_line(error), cure)
    return Finding("OpenCV", "ok", cv2.__version__)


def check_decoder() -> Finding:
    try:
        importlib.import_module("simplejpeg")
    except ImportError as error:
        return Finding("JPEG decoder", "fail", first_line(error), "pip install simplejpeg")
    return Finding("JPEG decoder", "ok", f"simplejpeg {metadata.version('simplejpeg')}")


def check_cpus() -> Finding:
    usable, total = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    found = f"{usable} of {total} cores usable"
    if usable < total:
        return Finding("CPU", "warn", found, "fewer than the machine has: on Slurm ask for --cpus-per-task")
    return Finding("CPU", "ok", found)


def check_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free at {folder}"
    if free < 15:
        advice = "3DIEBench at 128 px takes about 10 GiB as shards; use --out on a larger disk"
        return Finding("Disk", "warn", found, advice)
    return Finding("Disk", "ok", found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    if not folder.is_dir():
        advice = "our loader does not need it; DataLoader workers of other libraries do"
        return Finding("/dev/shm", "warn", "missing", advice)
    size = shutil.disk_usage(folder).total / GIB
    if size < 1:
        advice = "our loader does not need it; for other libraries start Docker with --shm-size=8g"
        return Finding("/dev/shm", "warn", f"{size * 1024:.0f} MiB", advice)
    return Finding("/dev/shm", "ok", f"{size:.1f} GiB")


def first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def examine(folder: Path) -> list[Finding]:
    """Every check, in the order of the report. `folder` is where shards or runs are going to live."""
    checks: list[Callable[[], Finding]] = [
        check_python, check_torch, check_gpu, check_opencv, check_decoder, check_cpus,
        lambda: check_disk(folder), check_shared_memory,
    ]  # fmt: skip
    return [*check_packages(), *(check() for check in checks)]
