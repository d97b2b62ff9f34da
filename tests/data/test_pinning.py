"""The logic of pinning with a stand-in for the CUDA runtime; test_loader.py has the real thing, marked gpu."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loaders import stored_loader
from noise_shards import noise_shards

from seqjepa.data.device import Retirement, pin
from shards.errors import FailureError
from shards.reader import ShardSet

SECOND = torch.device("cuda", 1)


class Event:
    """A CUDA event that has happened when `finished` says so, or when someone waited for it."""

    finished = False

    def record(self, stream: str) -> None:
        self.recorded = stream

    def query(self) -> bool:
        return self.finished

    def synchronize(self) -> None:
        assert self.recorded
        self.finished = True


@pytest.fixture
def events(monkeypatch) -> list[Event]:
    made: list[Event] = []

    def make() -> Event:
        made.append(Event())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Event", make)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"the current one of {device}")
    return made


def test_without_copies_a_slot_is_free_at_once():
    assert Retirement(None).retire(3) == [3]


def test_a_slot_waits_for_its_copies_and_at_most_one_waits(events):
    retirement = Retirement(SECOND)
    assert retirement.retire(0) == []
    assert retirement.retire(1) == [0]
    assert [event.finished for event in events] == [True, False]
    assert {event.recorded for event in events} == {"the current one of cuda:1"}
    events[1].finished = True
    assert retirement.retire(2) == [1]


def test_finished_copies_free_their_slot_at_once(events, monkeypatch):
    monkeypatch.setattr(Event, "finished", True)
    retirement = Retirement(SECOND)
    assert [retirement.retire(slot) for slot in (5, 6)] == [[5], [6]]


def cuda_runtime(status: int, calls: list) -> SimpleNamespace:
    return SimpleNamespace(
        cudaError=SimpleNamespace(success=0),
        cudaHostRegister=lambda *arguments: calls.append(("register", *arguments)) or status,
        cudaHostUnregister=lambda address: calls.append(("unregister", address)),
    )


def test_memory_is_registered_once_and_given_back_with_its_array(monkeypatch):
    calls: list = []
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda_runtime(0, calls))
    memory = np.zeros(4096, np.uint8)
    address = memory.ctypes.data
    pin(memory)
    assert calls == [("register", address, 4096, 0)]
    del memory
    assert calls[1:] == [("unregister", address)]


def test_refused_registration_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda_runtime(2, []))
    with pytest.raises(FailureError, match=r"cannot page-lock 3 MiB .* set train.pin_memory=false"):
        pin(np.zeros(3 << 20, np.uint8))


def test_a_machine_that_refuses_trains_without(tmp_path, monkeypatch):
    """train.pin_memory=false: nothing of CUDA is asked, and the batches are the same."""
    monkeypatch.setattr(torch.cuda, "cudart", lambda: pytest.fail("page-locked"))
    index = ShardSet.open(noise_shards(tmp_path / "set", 8)).split("train")
    settings = {"views": 2, "action": "rotation", "batch_size": 4, "seed": 0}
    batches = {}
    for device, pins in (("cuda", False), ("cpu", True)):
        with stored_loader(index, device=device, pin=pins, workers=0, resident=False, **settings) as loader:
            batches[device] = [seq.views.clone() for seq in loader.epoch(0)]
    assert all(torch.equal(a, b) for a, b in zip(batches["cuda"], batches["cpu"], strict=True))


def test_a_ring_ends_when_what_is_copied_to_its_own_device_has(tmp_path, monkeypatch, events):
    """Not the current device, as where `seqjepa.sequences` is given another."""
    waited: list[str] = []

    def stream(device=None):
        return SimpleNamespace(synchronize=lambda: waited.append(str(device)))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda_runtime(0, []))
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    index = ShardSet.open(noise_shards(tmp_path / "set", 8)).split("train")
    settings = {"views": 2, "action": "rotation", "batch_size": 4, "seed": 0, "workers": 0, "resident": False}
    with stored_loader(index, device="cuda:1", **settings) as loader:
        assert len(list(loader.epoch(0))) == 2
    assert waited == ["cuda:1"]
