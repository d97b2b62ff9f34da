"""What every benchmark here shares: one JSON object on one line, and what it was measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def emit(
    name: str, unit: str, ours: float | None, peers: dict[str, float], limit: float | None = None, **extra: Any
) -> dict[str, Any]:
    """Print the result on one line and return it.

    ratio_best_peer  ours / the best peer      ratio_limit  ours / limit      None where there is nothing to divide by
    Values in `extra` (versions, machine, measured ratios …) replace computed ones of the same name.
    """
    best = max(peers.values(), default=None)
    result = {
        "name": name,
        "unit": unit,
        "ours": ours,
        "peers": peers,
        "ratio_best_peer": ours / best if ours and best else None,
        "limit": limit,
        "ratio_limit": ours / limit if ours and limit else None,
        "versions": {},
        "machine": machine(),
        **extra,
    }
    print(json.dumps(_rounded(result)), flush=True)
    return result


def rate(work: Callable[[Any, Path], object], source: Any, out: Path, images: int) -> float:
    """Images a second of work(source, out); what it wrote is removed."""
    start = time.perf_counter()
    work(source, out)
    spent = time.perf_counter() - start
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    return images / spent


def surroundings(root: Path) -> dict[str, str]:
    """The environment of a process that imports from `root` first, then from wherever this one does, silently."""
    found = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(root), found] if found else [str(root)])
    return os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def machine() -> dict[str, Any]:
    """CPU, the cores that we may use, memory, operating system, and the GPU where torch is loaded and sees one."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; packages that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()


def _rounded(value: Any) -> Any:
    """Four significant digits: what a timing is good for."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
