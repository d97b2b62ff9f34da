"""Which GPU a name stands for. torch.cuda is played: what it would be told is what counts."""

from __future__ import annotations

import pytest
import torch

from seqjepa.devices import pick_device, take_device
from shards.errors import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Makes torch see so many GPUs; the list is of those that were made the current one."""
    current: list[torch.device] = []

    def install(count: int) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return install


def test_the_device_that_is_taken_is_the_current_one(gpus):
    """Without that, torch.cuda.manual_seed seeds cuda:0, and dropout on cuda:1 is another after every resume."""
    current = gpus(2)
    assert take_device("cuda:1") == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]
    assert pick_device("auto", 1) == torch.device("cuda", 1)
    assert take_device("cpu") == torch.device("cpu")
    assert current == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_the_one_gpu_that_a_slurm_task_sees_is_its_own(gpus, monkeypatch, name: str):
    gpus(1)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert pick_device(name, 3) == torch.device("cuda", 0)


def test_one_gpu_is_not_enough_for_several_processes_of_one_torchrun(gpus, monkeypatch):
    gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert pick_device("auto", 0) == torch.device("cuda", 0)
    with pytest.raises(UsageError, match=r"cuda:1 is not there; this machine has 1 GPU"):
        pick_device("auto", 1)


def test_a_number_means_that_gpu(gpus):
    gpus(1)
    with pytest.raises(UsageError, match="cuda:1 is not there"):
        pick_device("cuda:1", 0)
    gpus(2)
    with pytest.raises(UsageError, match="cuda:2 is not there"):
        pick_device("auto", 2)
