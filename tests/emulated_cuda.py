"""CUDA without a card: tensors that say `cuda:0`, refuse to mix with the host's, and compute on the CPU.

    with emulated_cuda() as gpu:
        train(config, shards, out, device="cuda")
    assert not gpu.syncs

What it shows: whether each tensor is where it must be, what the host waits for, how many kernels are launched and how
many bytes they move, and which stream ought to wait for another and does not (emulated_order.py). What it cannot show:
time, CUDA's own rounding, Triton, several cards.

Numbers are those of the CPU's kernels. With numbers=False there are none, only shapes: full-size steps take no time and
no memory (benchmarks/launches.py). torch.compile leaves modules as they are. emulated_runtime.py stands in for
torch.cuda. One process and one thread: worker processes see no GPU, as they should not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from emulated_graphs import Graph, capture
from emulated_runtime import Runtime
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.device("cuda", 0)
# Their output's size depends on values, or they look at an error code: the host has to wait.
WAITS = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal",
    "_linalg_eigh", "_linalg_svd", "_linalg_solve_ex",
}  # fmt: skip
# Claim memory or describe it: nothing runs on the device.
NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "_unsafe_view", "lift_fresh",
    "_local_scalar_dense", "set_", "is_same_size", "record_stream", "wait_tensor", "_fused_sdp_choice",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class EmulatedTensor(Tensor):
    """On cuda:0, as far as anyone can see; `held` is on the CPU, or on torch's device meta."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> EmulatedTensor:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CUDA,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"EmulatedTensor({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict) -> Tensor:
        copy = EmulatedTensor(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            return memo.setdefault(id(self), torch.nn.Parameter(copy, self.requires_grad))
        return memo.setdefault(id(self), copy.requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol: int) -> Any:  # type: ignore[override]
        return self.held.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor that outlived its emulated_cuda()")


class Emulation(TorchDispatchMode):
    """What happens to each operation, and what was counted.

    syncs     (what, where in the project) → how often the host waited for what the model's stream had queued
    waits     likewise, for another stream: copies that are made ahead
    launches  kernels by name;  bytes  they read and write. A CUDA graph that runs is one launch
    """

    def __init__(self, numbers: bool = True) -> None:
        super().__init__()
        self.syncs: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches: Counter[str] = Counter()
        self.bytes = 0
        self.runtime = Runtime(self.waited, numbers)
        self.numbers, self._home = numbers, torch.device("cpu" if numbers else "meta")
        self.capturing: Graph | None = None
        self.graphs: list[Graph] = []

    def reset(self) -> None:
        """Count from zero again."""
        for counter in (self.syncs, self.waits, self.launches):
            counter.clear()
        self.bytes = 0

    def new_graph(self) -> Graph:
        """torch.cuda.CUDAGraph(); `graphs` has them all."""
        self.graphs.append(Graph(self))
        return self.graphs[-1]

    def waited(self, what: str, aside: bool | None = None) -> None:
        """aside: for another stream than the model's; None: for the one that is current."""
        if self.capturing is not None:
            self.capturing.refused = True
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}; {_place()}")
        if aside is None:
            self.runtime.ended(self.runtime.reads_before(self.runtime.current))
            aside = self.runtime.aside
        (self.waits if aside else self.syncs)[what, _place()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        there = [x for x in leaves if isinstance(x, EmulatedTensor)]
        asked = next((torch.device(x).type for x in leaves if isinstance(x, torch.device)), None)
        if not there and asked != "cuda":
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        on_host = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, EmulatedTensor)]
        self._check(func, name, args, there, on_host)
        waited = self.syncs.total() + self.waits.total()
        self._note_waits(name, args, kwargs, there, asked)
        if asked == "cpu" and not self.numbers and name == "_to_copy":
            return torch.zeros(there[0].shape, dtype=kwargs.get("dtype") or there[0].dtype)
        if name == "_local_scalar_dense" and not self.numbers:
            return 0.5 if there[0].is_floating_point() else 1
        out = self._computed(func, name, args, kwargs, there, asked)
        if waited != self.syncs.total() + self.waits.total():
            self.runtime.order.host_waited(self.runtime.current.clock)
        return out

    def _computed(self, func: Any, name: str, args: Any, kwargs: Any, there: list[EmulatedTensor], asked: Any) -> Any:
        if name == "copy_":  # either may be on the host
            source, into = (getattr(x, "held", x) for x in (args[1], args[0]))
            if isinstance(args[0], EmulatedTensor) or self.numbers:
                self._run(func, (into, source), {})
            self._count(func, name, there, [])
            self._order(func, name, args, kwargs, there, [])
            return args[0]
        plain_args, plain = tree_map(self._plain, args), tree_map(self._plain, dict(kwargs))
        plain.pop("pin_memory", None)
        if name == "_to_copy":
            plain.pop("non_blocking", None)
        out = self._run(func, plain_args, plain)
        if torch.Tag.inplace_view in func.tags:  # the shape of what is seen changes with that of what is held
            with no_dispatch():
                func(*args, **kwargs)
        owners = {id(x.held): x for x in there}
        stays = asked in (None, "cuda")
        made: list[Tensor] = []

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor) or not stays:
                return x
            if (owner := owners.get(id(x))) is not None:
                return owner
            made.append(x)
            return EmulatedTensor(x)

        out = tree_map(wrapped, out)
        self._count(func, name, there, made)
        self._order(func, name, args, kwargs, there, made)
        return out

    def _order(self, func: Any, name: str, args: Any, kwargs: Any, there: list[EmulatedTensor], made: Any) -> None:
        """made: what is held of outputs. A graph uses what its kernels do, when it runs."""
        if not self.numbers:
            return
        order, stream = self.runtime.order, self.runtime.current
        for tensor in made:
            order.claimed(tensor, stream)
        if name in NO_KERNEL or _is_view(func):
            return
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(argument, kwargs[argument.name]) for argument in func._schema.arguments if argument.name in kwargs]
        changed = [
            value for argument, value in given if argument.alias_info is not None and argument.alias_info.is_write
        ]
        writes = [*made, *(x.held for x in tree_leaves(changed) if isinstance(x, EmulatedTensor))]
        reads = [x.held for x in there]
        if self.capturing is not None:
            self.capturing.uses += [(reads, writes)]
        else:
            order.ran(stream, reads, writes, _place())

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not self.numbers and not func._schema.returns:
            return None  # it changes numbers alone, and torch cannot say of all such that they have none
        return func(*args, **kwargs) if self.capturing is None else self.capturing.record(func, args, kwargs)

    def _plain(self, x: Any) -> Any:
        if isinstance(x, EmulatedTensor):
            return x.held
        if isinstance(x, torch.device):
            return self._home if x.type == "cuda" else x
        if isinstance(x, Tensor) and not self.numbers and x.dim():
            return x.to("meta")
        return x

    def _check(self, func: Any, name: str, args: Any, there: list[EmulatedTensor], on_host: list[Tensor]) -> None:
        if name in INDEXING:
            if not isinstance(args[0], EmulatedTensor):
                raise RuntimeError(f"{func}: indices are on cuda:0, what they choose from is on the CPU")
            indices = {id(x) for x in args[1]}
            on_host = [x for x in on_host if id(x) not in indices]
        if name in ("copy_", "_to_copy"):
            return
        if there and (mixed := [tuple(x.shape) for x in on_host if x.dim()]):
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu {mixed}; {_place()}"
            )

    def _note_waits(self, name: str, args: Any, kwargs: Any, there: list[EmulatedTensor], asked: Any) -> None:
        if name == "_local_scalar_dense":
            self.waited("a value is read")
        elif name in WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.waited(name)
        elif name in INDEXING:
            if any(isinstance(x, EmulatedTensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]):
                self.waited("a mask as index")
            if any(isinstance(x, Tensor) and not isinstance(x, EmulatedTensor) for x in args[1]):
                self.waited("an index on the host")
        elif name == "_to_copy" and asked is not None:
            self._note_copy(args[0], asked == "cuda", kwargs.get("non_blocking", False))
        elif name == "copy_":
            self._note_copy(args[1], isinstance(args[0], EmulatedTensor), len(args) > 2 and args[2])

    def _note_copy(self, source: Tensor, to_cuda: bool, non_blocking: bool) -> None:
        """Copies wait where they are not asked not to, and from memory that is not page-locked all the same."""
        from_cuda = isinstance(source, EmulatedTensor)
        if from_cuda == to_cuda or not source.numel():
            return
        if self.capturing is not None:
            raise RuntimeError(f"a graph would copy from, or to, that memory of the host at every replay; {_place()}")
        if not non_blocking or (to_cuda and not self.runtime.is_locked(source)):
            self.waited("a copy to the device" if to_cuda else "a copy to the host")
        elif to_cuda:
            self.runtime.reads(source)

    def _count(self, func: Any, name: str, there: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        if not _is_view(func) and name not in NO_KERNEL:
            self.launches[name] += 1
            self.bytes += sum(x.numel() * x.element_size() for x in (*there, *made))


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _place() -> str:
    """The innermost line of the project's own code, and its caller."""
    frame, found = sys._getframe(1), []
    while frame is not None and len(found) < 2:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in ("seqjepa", "pipelines"):
            found.append(f"{file.relative_to(ROOT)}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


@contextmanager
def emulated_cuda(numbers: bool = True) -> Iterator[Emulation]:
    """torch finds one GPU until this ends. Needs gpu_emulated.load_runtime before torch is imported."""
    emulation = Emulation(numbers)
    with ExitStack() as stack:
        stack.enter_context(emulation.runtime.installed())
        stack.enter_context(patch.object(torch.cuda, "CUDAGraph", emulation.new_graph))
        stack.enter_context(patch.object(torch.cuda, "graph", capture))
        stack.enter_context(emulation)
        yield emulation
