"""The emulation itself: it refuses what a GPU refuses, counts what the host waits for, and computes as the CPU does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.emulated


def test_devices_do_not_mix(gpu):
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert there.is_cuda
    assert there.device == torch.device("cuda", 0)
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[there.long()], there.numpy):
        with pytest.raises((RuntimeError, TypeError), match="cuda"):
            mix()
    assert (there + torch.tensor(1.0)).is_cuda  # a number of the host's goes with anything
    torch.testing.assert_close(there.cpu() + here, torch.full((3,), 2.0))


def test_a_module_learns_there_as_here(gpu):
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(8, 3, 6, 6)
    here(x)
    there = copy.deepcopy(here).to("cuda")
    for module, inputs in ((here, x), (there, x.to("cuda"))):
        optimizer = torch.optim.AdamW(module.parameters(), fused=inputs.is_cuda)
        for _ in range(3):
            optimizer.zero_grad()
            module(inputs).square().mean().backward()
            optimizer.step()
    for name, value in there.state_dict().items():
        assert value.is_cuda
        torch.testing.assert_close(value.cpu(), here.state_dict()[name])
    state = torch.optim.AdamW(copy.deepcopy(there).parameters())  # copies are parameters too
    assert all(isinstance(p, nn.Parameter) and p.is_cuda for group in state.param_groups for p in group["params"])


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: x.sum().item(), "a value is read"),
        (lambda x: bool((x > 2).any()), "a value is read"),
        (lambda x: x.cpu(), "a copy to the host"),
        (lambda x: x.tolist(), "a copy to the host"),
        (lambda x: torch.ones(3).to("cuda"), "a copy to the device"),
        (lambda x: torch.ones(3).to("cuda", non_blocking=True), "a copy to the device"),  # it is not page-locked
        (lambda x: torch.tensor([1.0, 2.0], device="cuda"), "a copy to the device"),
        (lambda x: x[x > 2], "a mask as index"),
        (lambda x: x[torch.tensor([1])], "an index on the host"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
        (lambda x: torch.cuda.current_stream().synchronize(), "Stream.synchronize"),
    ],
)
def test_what_the_host_waits_for_is_counted(gpu, wait, what):
    x = torch.arange(5.0, device="cuda")
    gpu.reset()
    wait(x)
    assert {kind for kind, _ in gpu.syncs} == {what}
    gpu.reset()
    with torch.cuda.stream(torch.cuda.Stream()):
        wait(x)
    aside = what != "synchronize"  # that waits for every stream
    assert {kind for kind, _ in (gpu.waits if aside else gpu.syncs)} == {what}


def test_what_does_not_wait_is_not_counted(gpu):
    x = torch.ones(4, 6, device="cuda", requires_grad=True)
    gpu.reset()
    (x @ x.T).softmax(0).sum().backward()
    torch.ones(3).pin_memory().to("cuda", non_blocking=True)
    torch.where(x > 2, x, 0.0).index_select(0, torch.arange(2, device="cuda"))
    assert not gpu.syncs
    assert not gpu.waits


def test_launches_and_bytes_are_of_what_runs(gpu):
    x = torch.ones(10, 4, device="cuda")
    gpu.reset()
    y = (x.view(4, 10).T[:5] * 2).add_(1)
    assert dict(gpu.launches) == {"mul": 1, "add_": 1}
    assert y.shape == (5, 4)
    assert gpu.bytes == 4 * (20 + 20) + 4 * 20


@pytest.mark.parametrize("how", ["nobody", "synchronize", "a stream's end", "an event", "an event on another stream"])
def test_memory_that_a_copy_may_still_read_is_not_to_be_given_back(gpu, how: str) -> None:
    memory, runtime = torch.ones(4, 3), torch.cuda.cudart()
    runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    stream, event = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        memory[1].to("cuda", non_blocking=True)
        event.record()
    if how == "an event on another stream":
        torch.cuda.current_stream().wait_event(event)
    ends = {"synchronize": torch.cuda, "a stream's end": stream, "an event": event, "nobody": None}
    if waited := ends.get(how, torch.cuda.current_stream()):
        waited.synchronize()
    runtime.cudaHostUnregister(memory.data_ptr())
    assert gpu.runtime.torn == ([memory.data_ptr()] if how == "nobody" else [])
    gpu.runtime.torn.clear()


@pytest.mark.parametrize("how", ["nobody", "a stream", "an event", "the host", "record_stream"])
@pytest.mark.parametrize("what", ["read", "written", "claimed anew"])
def test_streams_that_do_not_wait_for_each_other_are_found(gpu, what: str, how: str) -> None:
    model, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    x = torch.ones(3, device="cuda")
    aside.wait_stream(model)
    with torch.cuda.stream(aside):
        y = x.add_(1) if what == "read" else x + 1
    waits = {"a stream": lambda: model.wait_stream(aside), "an event": lambda: model.wait_event(aside.record_event())}
    waits |= {"the host": lambda: aside.synchronize(), "record_stream": lambda: x.record_stream(aside)}
    waits.get(how, lambda: None)()
    if what == "claimed anew":
        del x
        gpu.runtime.order.find_freed()
        torch.ones(3, device="cuda")
    else:
        torch.mul(x, 2) if what == "read" else x.mul_(2)
    recorded = how == "record_stream" and what != "claimed anew"  # which nobody waits for but the allocator
    assert bool(gpu.runtime.order.races) == (how == "nobody" or recorded)
    assert all(what in race for race in gpu.runtime.order.races)
    gpu.runtime.order.races.clear()
    del y


def test_a_graph_copies_nothing_from_the_host(gpu) -> None:
    locked = torch.ones(3).pin_memory()
    with pytest.raises(RuntimeError, match="at every replay"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        locked.to("cuda", non_blocking=True)
