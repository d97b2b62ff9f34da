"""Kernels that a compiled training step launches on an H100, as Inductor plans them; no GPU is needed.

    python benchmarks/compiled_launches.py [--recipe 3die-rot-M3] [--batch 512] [--set key=value …]
    python benchmarks/compiled_launches.py --part augmentation|patches|meter [--batch 512]

The second is of batches that are made on the GPU: two views of images of 96 px with the recipe equimod, or five
fixations and patches of 32 px in such images; or of the sums over an epoch that a step is added to.

torch is told that there is an H100 (tests/fake_cudart.c, built with a C compiler and CUDA's headers), the step runs on
tensors without values, and Inductor writes its programs, which are counted and not run: `triton` kernels, and calls of
cuDNN, cuBLAS and ATen. A step is forward and backward; optimizer and moving averages are not compiled.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fake_runtime import load_runtime  # noqa: E402

CALLS = re.compile(r"(triton)_\w+\.run\(|(extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.[\w.]+)\(")
CUDA = "/usr/local/cuda"
SIDE = 96
PROPERTIES = {
    "name": "NVIDIA H100 80GB HBM3",
    "major": 9,
    "minor": 0,
    "total_memory": 80 << 30,
    "multi_processor_count": 132,
    "regs_per_multiprocessor": 65536,
    "max_threads_per_multi_processor": 2048,
    "max_threads_per_block": 1024,
    "warp_size": 32,
    "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 232448,
    "shared_memory_per_multiprocessor": 233472,
    "L2_cache_size": 50 << 20,
    "gcnArchName": "",
}


class NotRun(Exception):  # noqa: N818  the way out before anything is launched
    pass


def play_torch_cuda() -> None:
    """What of torch, Inductor and Triton would wake a driver."""
    import torch
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import config
    from torch._subclasses.fake_tensor import FakeTensorMode
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    h100 = SimpleNamespace(**PROPERTIES)
    FakeTensorMode.avoid_device_init = property(lambda self: True)  # type: ignore[assignment]
    nothing = {"_lazy_init": None, "set_device": None, "synchronize": None, "current_device": 0, "device_count": 1}
    found = {"is_available": True, "is_current_stream_capturing": False, "is_bf16_supported": True}
    known = {"get_device_properties": h100, "_get_device_properties": h100, "get_device_capability": (9, 0)}
    for name, value in (nothing | found | known).items():
        setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    torch.cuda.graphs.is_current_stream_capturing = lambda: False
    torch.cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.set_rng_state = lambda *_: None
    for name in ("get_device_properties", "is_available", "is_triton_capable", "raise_if_triton_unavailable"):
        value = h100 if name == "get_device_properties" else True
        setattr(CudaInterface, name, staticmethod(lambda *_, _value=value: _value))
    CudaInterface.Worker.get_device_properties = staticmethod(lambda *_: h100)  # type: ignore[assignment]
    driver._active = driver._default = SimpleNamespace(  # type: ignore[assignment]
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
    )
    torch._C._set_multithreading_enabled(False)
    torch._C._select_conv_backend = lambda *_, **__: torch._C._ConvBackend.Cudnn  # type: ignore[assignment]
    torch._C._conv_determine_backend_memory_format = _layout  # type: ignore[assignment]
    config.force_disable_caches = True
    config.joint_graph_constant_folding = False  # it computes on the device


def _layout(x: Any, weight: Any, backend: Any) -> Any:
    import torch

    last = x.dim() == 4 and any(t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight))
    return torch.channels_last if last else torch.contiguous_format


def programs_of_a_step(recipe: str, settings: list[str], batch: int) -> list[str]:
    """Inductor's programs, forward and then backward: one each where the step is one graph."""
    import torch
    from torch._functorch import config as aot_config
    from torch._subclasses.fake_tensor import FakeTensorMode

    from seqjepa.data.sequence import ViewSequence
    from seqjepa.recipes import load_recipe
    from seqjepa.training.checkpoint import initial_method
    from seqjepa.training.compiled import Compiled, Step

    config = load_recipe(recipe, settings)
    actions = 6 if config.method == "context_ssl" else 4
    method = initial_method(config, actions)
    method.normalise_globally()  # as Learner does
    step = Step(method, (0.5,) * 3, (0.2,) * 3).train()
    torch.set_float32_matmul_precision("high")
    T, side = config.data.context + 1, config.data.image_size
    with FakeTensorMode(allow_non_fake_inputs=True), written_programs() as programs, suppress(NotRun):
        _move(step)
        views = torch.empty(batch, T, side, side, 3, dtype=torch.uint8, device="cuda").permute(0, 1, 4, 2, 3)
        told = (torch.empty(batch, T - 1, actions, device="cuda"), torch.empty(batch, T, 7, device="cuda"))
        seq = ViewSequence(views, *told, torch.empty(batch, dtype=torch.int64, device="cuda"), [])
        compiled = Compiled(step)  # with the options that training compiles with
        with torch.autocast("cuda", torch.bfloat16), aot_config.patch(force_non_lazy_backward_lowering=True):
            compiled(seq)
    return programs


def programs_of_a_part(part: str, batch: int) -> list[str]:
    """Inductor's program of views or patches, which are one graph: `fullgraph` makes sure of it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Before there are tensors without values, which no constant can be made of.
    import seqjepa.data.views
    import seqjepa.training.monitor  # noqa: F401

    with FakeTensorMode(allow_non_fake_inputs=True), written_programs() as programs, suppress(NotRun):
        function, given = PARTS[part](batch, "cuda")
        torch.compile(function, dynamic=False, fullgraph=True, options={"combo_kernels": part == "meter"})(*given)
    return programs


@contextmanager
def written_programs() -> Iterator[list[str]]:
    """What Inductor writes meanwhile; NotRun is raised where it would be run."""
    from torch._inductor.graph import GraphLowering

    programs: list[str] = []

    def written(graph: Any) -> Any:
        code = graph.codegen()[0]
        programs.append(getattr(code, "value", code))
        return SimpleNamespace(__file__="", call=_not_run)

    with patch.object(GraphLowering, "_compile_to_module", written):
        yield programs


def augmentation(batch: int, device: str) -> tuple[Any, tuple[Any, ...]]:
    """What is called with what, for two views each of `batch` images."""
    import torch

    from seqjepa.data.augment.apply import views_of

    stored = torch.empty(2 * SIDE * SIDE * 2 * SIDE, device=device)
    bank = stored.as_strided((2 * SIDE, SIDE + 1, SIDE, SIDE), (SIDE * 2 * SIDE, 1, 2 * SIDE, 1))
    images = torch.empty(batch, 3, SIDE, SIDE, dtype=torch.uint8, device=device)
    sample, table = torch.zeros(2 * batch, dtype=torch.int64, device=device), torch.empty(2 * batch, 17, device=device)
    return views_of, (images, sample, table, (bank, bank))


def patches(batch: int, device: str) -> tuple[Any, tuple[Any, ...]]:
    """What is called with what, for five patches each of `batch` images."""
    import torch

    from seqjepa.data.fixations import Fixating, looks_of

    images = torch.empty(batch, SIDE, SIDE, 3, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    maps, numbers = torch.empty(batch, SIDE, SIDE, device=device), torch.empty(batch, 5, 2, device=device).double()
    how, around = Fixating(), torch.empty(3, dtype=torch.uint8, device=device)
    reach = torch.empty(2 * how.radius + 1, dtype=torch.int16, device=device)
    return looks_of, (images, maps, numbers, how, reach, around)


def meter(batch: int, device: str) -> tuple[Any, tuple[Any, ...]]:
    """What is called with what, to add a step of seq-JEPA with `batch` sequences up."""
    import torch

    from seqjepa.training.monitor import EpochMeter, add_up

    widths = {"z": torch.Size((batch, 4, 512)), "z_agg": torch.Size((batch, 512))}
    made = EpochMeter(widths, 4, device)
    shown = {name: torch.empty(shape, device=device) for name, shape in widths.items()}
    features = {name: (made.moments[name], shown[name]) for name in widths}
    scored = ("labelled", "correct", "sq_err", "y", "y_sq")
    probes = {name: torch.empty_like(made.sums[name]).float() for name in scored}
    return add_up, (made.sums, torch.empty((), device=device), probes, features, float(batch))


PARTS = {"augmentation": augmentation, "patches": patches, "meter": meter}


def _not_run(*_: Any) -> None:
    raise NotRun


def _move(module: Any) -> None:
    """Parameters and buffers become tensors without values on the GPU, in Learner's memory format."""
    import torch

    for child in module.modules():
        for name, p in child._parameters.items():
            if p is not None:
                layout = torch.channels_last if p.ndim == 4 else torch.contiguous_format
                empty = torch.empty(p.shape, dtype=p.dtype, device="cuda", memory_format=layout)
                child._parameters[name] = torch.nn.Parameter(empty, p.requires_grad)
        for name, b in child._buffers.items():
            child._buffers[name] = None if b is None else torch.empty(b.shape, dtype=b.dtype, device="cuda")


def launches(program: str) -> collections.Counter[str]:
    body = program[program.index("def call(") :].split("def get_args", 1)[0]
    lines = (line for line in body.splitlines() if "assert" not in line)
    return collections.Counter(found[1] or found[2] for line in lines if (found := CALLS.search(line)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="3die-rot-M3")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--part", default="step", choices=("step", *PARTS))
    parser.add_argument("--cuda", default=CUDA, help="folder of CUDA's headers")
    asked = parser.parse_args()
    load_runtime("-DH100", f"-I{asked.cuda}/include")
    play_torch_cuda()
    began = time.perf_counter()
    if asked.part == "step":
        name, programs = asked.recipe, programs_of_a_step(asked.recipe, asked.settings, asked.batch)
    else:
        name, programs = asked.part, programs_of_a_part(asked.part, asked.batch)
    counted = [launches(program) for program in programs]
    total = sum(counted, collections.Counter())
    directions = {"forward_backward": [part.total() for part in counted]} if asked.part == "step" else {}
    from common import emit, machine, versions

    emit(
        f"compiled {'step: ' if asked.part == 'step' else ''}{name}, batch {asked.batch}",
        "launches",
        float(total.total()),
        {},
        **directions,
        kinds=dict(total.most_common()),
        seconds=time.perf_counter() - began,
        versions=versions("torch", "triton"),
        machine={key: value for key, value in machine().items() if key != "gpu"},  # there is none
    )


if __name__ == "__main__":
    main()
