"""How a process group ends on GPUs. NCCL's messages are kernels, which wait for a rank that is lost: they are aborted,
or what waits for them would wait too (torch's `shutdown`). No test has had two GPUs: what stands in for NCCL notes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from train_helpers import tiny_config

from seqjepa.training import distributed
from seqjepa.training import train as training
from seqjepa.training.distributed import World, _abort_messages, doubt_of_slurm, process_group
from seqjepa.training.run import DataInfo, RunPlan
from seqjepa.training.train import refuse_mixed_ranks
from shards.errors import DamageError, FailureError, UsageError

DATA = DataInfo("rotation", 4, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1), 32, 32)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the group, in order."""
    noted: list[str] = []

    def notes(what: str) -> Callable[..., None]:
        return lambda *_, **__: noted.append(what)

    group = SimpleNamespace(_get_backend=lambda device: SimpleNamespace(abort=notes(f"abort on {device}")))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "destroy_process_group", notes("destroy"))
    monkeypatch.setattr(dist, "group", SimpleNamespace(WORLD=group))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed, "_store_of_this_start", lambda *_: None)
    return noted


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (dist.DistBackendError("NCCL communicator was aborted"), FailureError),
        (RuntimeError("[/build/gloo/transport/tcp/pair.cc:538] Connection closed by peer"), FailureError),
        (RuntimeError("CUDA error: unspecified launch failure"), RuntimeError),
        (DamageError("shard 3 is torn"), DamageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize(("device", "before"), [("cuda:1", ["abort on cuda:1"]), ("cpu", [])])
def test_messages_that_wait_are_aborted(ended: list[str], error: BaseException, seen, device: str, before) -> None:
    with pytest.raises(seen) as raised, process_group(World(1, 2, 1), torch.device(device)):
        raise error
    assert ended == [*before, "destroy"]
    assert (raised.value.__cause__ is error) == (seen is FailureError)


def test_what_has_ended_well_is_waited_for(ended: list[str]) -> None:
    with process_group(World(1, 2, 1), torch.device("cuda", 1)):
        pass
    assert ended == ["destroy"]


@pytest.mark.skipif(not dist.is_nccl_available(), reason="this torch has no NCCL")
def test_nccl_can_be_aborted() -> None:
    assert callable(dist.ProcessGroupNCCL.abort)
    assert callable(dist.ProcessGroup._get_backend)


@pytest.mark.gpu
def test_on_a_gpu_an_aborted_group_ends(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        dist.all_reduce(torch.ones(4, device=device))
        _abort_messages(device)
    finally:
        dist.destroy_process_group()
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0, WORLD_SIZE 0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, WORLD_SIZE 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is -1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK -1"),
        ({"RANK": "one"}, "must be whole numbers"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "abc"}, "MASTER_PORT is 'abc'"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "99999"}, "MASTER_PORT is '99999'"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "0"}, "MASTER_PORT is '0'"),  # of torchrun --master-port 0
    ],
)
def test_what_launchers_say_wrongly_is_refused_before_anybody_waits(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        World.from_environment()


@pytest.mark.parametrize(
    ("settings", "shards", "said"),
    [
        ((), "abc", ""),
        ((), "def", "shards.train: def there, abc here"),
        (("optim.lr=0.5",), "abc", "optim.lr: 0.5 there"),
        (("train.timeout_minutes=7",), "abc", ""),
    ],
)
def test_ranks_of_two_runs_do_not_train_together(settings, shards: str, said: str, monkeypatch) -> None:
    def plan_of(settings: tuple[str, ...], shards: str) -> RunPlan:
        return RunPlan(tiny_config(*settings), DATA, {"name": "tiny", "train": shards})

    main: list[bytes] = []
    monkeypatch.setattr(training, "from_main", lambda world, data: main.append(data) or main[0])
    refuse_mixed_ranks(plan_of(settings, shards), World())  # as rank 0
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        refuse_mixed_ranks(plan_of((), "abc"), World())


def test_tasks_of_srun_that_train_alone_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for tasks, said in (("1", ""), ("4", "srun started 4 tasks, and this one trains alone")):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        assert doubt_of_slurm().startswith(said)
        assert bool(doubt_of_slurm()) == bool(said)
    monkeypatch.setenv("RANK", "0")
    assert doubt_of_slurm() == ""
