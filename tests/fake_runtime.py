"""A stand-in for the CUDA runtime, compiled and loaded before torch, which then finds one GPU: fake_cudart.c."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def load_runtime(*flags: str) -> None:
    """Makes torch, which must not be loaded yet, find it. flags: of the C compiler."""
    assert "torch" not in sys.modules, "too late: torch is loaded"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "emulated CUDA needs a C compiler"
    source = Path(__file__).with_name("fake_cudart.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libcuda.so.1"  # torch asks the driver's library too: that is this one
        command = [compiler, "-shared", "-fPIC", *flags, "-Wl,-soname,libcuda.so.1", "-o", library, source]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
