"""Which devices a model runs on."""

from __future__ import annotations

import torch

from shards.errors import UsageError


def chosen_devices(device: str, processes: int | None = None) -> list[str]:
    """One name for each process: "cuda:0,cuda:1" → two; "auto" is the first GPU, else the CPU.

    processes: how many share the CPU (None: one). Raises UsageError for a device that is not there or given twice.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [_known(name.strip()) for name in device.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"--device {device}: each device once")
    if processes is None:
        return names
    if names != ["cpu"] or processes < 1:
        raise UsageError(f"--processes {processes} is for --device cpu, and at least 1; on GPUs there is one for each")
    return names * processes


def _known(name: str) -> str:
    """ "cuda" → "cuda:0"."""
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if kind != "cuda" or not (number or "0").isdigit() or int(number or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise UsageError(f"--device {name!r} is not there; there are {there}, and auto")
    return f"cuda:{int(number or 0)}"
