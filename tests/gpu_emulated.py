"""pytest -p gpu_emulated -m "gpu or emulated": tests that need a GPU run on an emulated one (emulated_cuda.py).

In a process of its own: torch looks for cards once. A build of torch with CUDA asks the CUDA runtime even where all
tensors are emulated, so a stand-in for it is compiled and loaded before torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from fake_runtime import load_runtime

load_runtime()
import torch  # noqa: E402


def _inference_mode(mode: Any = True) -> Any:
    return contextlib.nullcontext() if mode is False else torch.no_grad() if mode is True else torch.no_grad()(mode)


torch.inference_mode = _inference_mode  # before the project decorates with it: its tensors cannot be emulated
from emulated_cuda import Emulation, emulated_cuda  # noqa: E402
from native_batch_norm import register  # noqa: E402

_KERNELS = register()


@pytest.fixture(autouse=True)
def gpu() -> Iterator[Emulation]:
    with emulated_cuda() as emulation:
        yield emulation
        emulation.runtime.order.find_freed()
        assert not (races := emulation.runtime.order.races), races[:3]
        assert not emulation.runtime.torn, "page-locked memory was given back while a copy to the device might read it"
