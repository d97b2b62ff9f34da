"""What stands in for torch.cuda where CUDA is emulated (emulated_cuda.py): streams, events, page-locked memory …"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed
from emulated_order import Clock, Order
from torch import Tensor

_ATTENTION = torch.nn.functional.scaled_dot_product_attention
FREE, TOTAL = 70 << 30, 80 << 30
NAME = "emulated CUDA device"


class Runtime:
    """One GPU. waited: called with what the host waits for and whether that is on another stream than the model's."""

    def __init__(self, waited: Callable[[str, bool], None], numbers: bool) -> None:
        self.waited, self.numbers, self.order = waited, numbers, Order()
        self.model = self.current = Stream(self)
        self.locked: dict[int, int] = {}  # address → bytes
        self.kept: list[Tensor] = []  # page-locked copies, so that no other memory gets their address
        self.reading: list[tuple[int, set[Stream]]] = []  # copies from registered memory; streams that end after each
        self.registered: set[int] = set()
        self.torn: list[int] = []  # memory that was given back while a copy might read it

    @property
    def aside(self) -> bool:
        """Whether another stream than the model's is current."""
        return self.current is not self.model

    def new_stream(self) -> Stream:
        return Stream(self)

    def is_locked(self, tensor: Tensor) -> bool:
        return self._start_of(tensor) is not None

    def _start_of(self, tensor: Tensor) -> int | None:
        """Of the page-locked memory that it lies in."""
        if tensor.device.type != "cpu":
            return None
        starts = sorted(self.locked)
        at = bisect.bisect_right(starts, tensor.data_ptr()) - 1
        return starts[at] if at >= 0 and tensor.data_ptr() < starts[at] + self.locked[starts[at]] else None

    def reads(self, tensor: Tensor) -> None:
        """A copy from it is queued, which nobody waits for."""
        if (start := self._start_of(tensor)) in self.registered:
            self.reading.append((start, {self.current}))

    def reads_before(self, stream: Stream) -> list[tuple[int, set[Stream]]]:
        """Copies that have ended when what is queued on `stream` has."""
        return [read for read in self.reading if stream in read[1]]

    def ended(self, reads: list[tuple[int, set[Stream]]]) -> None:
        self.reading = [read for read in self.reading if not any(read is one for one in reads)]

    def lock(self, tensor: Tensor) -> Tensor:
        """Tensor.pin_memory."""
        if self.is_locked(tensor):
            return tensor
        copy = tensor.clone(memory_format=torch.preserve_format)
        self.locked[copy.data_ptr()] = copy.untyped_storage().nbytes()
        self.kept.append(copy)
        return copy

    @contextmanager
    def use(self, stream: Stream | None) -> Iterator[None]:
        before, self.current = self.current, stream or self.current
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def installed(self) -> Iterator[None]:
        benchmark, precision = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
        cudnn = torch._C._get_cudnn_enabled()
        with ExitStack() as stack:
            for owner, names in self._stand_ins().items():
                for name, value in names.items():
                    stack.enter_context(patch.object(owner, name, value))
            stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
            torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") is made and then moved
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # what is counted is one thread's
            stack.callback(
                torch.__future__.set_overwrite_module_params_on_conversion,
                torch.__future__.get_overwrite_module_params_on_conversion(),
            )
            torch.__future__.set_overwrite_module_params_on_conversion(True)  # a plain Parameter has no `held`
            torch._C._ensureCUDADeviceGuardSet()  # where torch is built without CUDA
            torch._C._set_cudnn_enabled(False)  # its batch norm wants a real tensor
            try:
                yield
            finally:
                torch._C._set_cudnn_enabled(cudnn)
                torch.backends.cudnn.benchmark = benchmark
                torch.set_float32_matmul_precision(precision)

    def _stand_ins(self) -> dict[Any, dict[str, Any]]:
        cuda: dict[str, Any] = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "is_bf16_supported": lambda *_, **__: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "get_device_name": lambda device=None: NAME,
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_properties": lambda device=None: SimpleNamespace(
                name=NAME, total_memory=TOTAL, major=9, minor=0, multi_processor_count=132
            ),
            "mem_get_info": lambda device=None: (FREE, TOTAL),
            "memory_allocated": lambda device=None: 0,
            "max_memory_allocated": lambda device=None: 0,
            "reset_peak_memory_stats": lambda device=None: None,
            "empty_cache": lambda: None,
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
            "synchronize": lambda device=None: self._synchronize(),
            "set_sync_debug_mode": lambda mode: None,
            "get_sync_debug_mode": lambda: 0,
            "cudart": self._cudart,
            "Stream": lambda device=None, priority=0: self.new_stream(),
            "Event": lambda **_: Event(self),
            "stream": self.use,
            "current_stream": lambda device=None: self.current,
            "default_stream": lambda device=None: self.model,
        }
        join = torch.distributed.init_process_group

        def joined(backend: str | None = None, *given: Any, **named: Any) -> None:
            join("gloo" if backend == "nccl" else backend, *given, **named)

        return {
            torch.distributed: {"init_process_group": joined},
            torch.nn.functional: {"scaled_dot_product_attention": self._attention},
            torch.cuda: cuda,
            torch.cuda.amp.common: {"amp_definitely_not_available": lambda: False},
            torch.Tensor: {
                "record_stream": lambda tensor, stream: self.order.record(tensor.held, stream),
                "pin_memory": lambda tensor, device=None: self.lock(tensor),
                "is_pinned": lambda tensor, device=None: self.is_locked(tensor),
                "cuda": lambda tensor, device=None, non_blocking=False: tensor.to("cuda", non_blocking=non_blocking),
            },
            torch.nn.Module: {"cuda": lambda module, device=None: module.to("cuda")},
            torch: {"compile": lambda module, **_: module},
        }

    def _attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, **rest: Any,
    ) -> Tensor:  # fmt: skip
        """One kernel, as on a card; with dropout, which the CPU's has not, the many of its definition."""
        if not q.is_cuda:
            return _ATTENTION(q, k, v, attn_mask, dropout_p, is_causal, **rest)
        if dropout_p and self.numbers:
            return torch.ops.aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, is_causal, **rest)[
                0
            ]
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, float("-inf"))
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(q, k, v, 0.0, is_causal, attn_mask=attn_mask, **rest)[0]

    def _synchronize(self) -> None:
        self.waited("synchronize", False)
        self.order.host_waited()
        self.reading.clear()

    def _cudart(self) -> SimpleNamespace:
        def register(address: int, size: int, flags: int) -> int:
            self.locked[address] = size
            self.registered.add(address)
            return 0

        def unregister(address: int) -> bool:
            self.torn += [start for start, _ in self.reading if start == address]
            self.registered.discard(address)
            return self.locked.pop(address, None) is None

        return SimpleNamespace(
            cudaError=SimpleNamespace(success=0),
            cudaHostRegister=register,
            cudaHostUnregister=unregister,
        )


class Stream:
    """Work on it is done at once."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.device = runtime, torch.device("cuda", 0)
        self.clock: Clock = {}

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.runtime)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None, "an event that was never recorded"
        for _, streams in event.after:
            streams.add(self)
        self.runtime.order.waits(self, event.clock)

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        self.runtime.waited("Stream.synchronize", self is not self.runtime.model)
        self.runtime.ended(self.runtime.reads_before(self))
        self.runtime.order.host_waited(self.clock)


class Event:
    """Of a place in a stream."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.stream: Stream | None = None
        self.after: list[tuple[int, set[Stream]]] = []
        self.clock: Clock = {}
        self._seen = False  # whether it was found to have happened: then nothing waits for it

    def record(self, stream: Stream | None = None) -> None:
        self.stream, self._seen = stream or self.runtime.current, False
        self.after, self.clock = self.runtime.reads_before(self.stream), dict(self.stream.clock)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.runtime.current).wait_event(self)

    def query(self) -> bool:
        self._seen = True
        self.runtime.ended(self.after)
        self.runtime.order.host_waited(self.clock)
        return True

    def elapsed_time(self, other: Event) -> float:
        return 1.0

    def synchronize(self) -> None:
        if not self._seen:
            self.runtime.waited("Event.synchronize", self.stream is not self.runtime.model)
        self.runtime.ended(self.after)
        self.runtime.order.host_waited(self.clock)
