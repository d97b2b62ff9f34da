"""In place of Python, for benchmarks/gpu.sh on an emulated card: python emulated_python.py WHAT PYTHON IS GIVEN

Benchmarks are tiny, with options of emulated/test_gpu_benchmarks.py, tests are those of two files.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

from fake_runtime import load_runtime

FEW_TESTS = ["tests/data/test_feed.py", "tests/models/test_precision.py"]


def main(words: list[str]) -> None:
    load_runtime()
    if words[:2] == ["-m", "pytest"]:
        import pytest

        sys.exit(pytest.main(["-p", "gpu_emulated", *words[2:-1], *FEW_TESTS]))
    from emulated_cuda import emulated_cuda

    with emulated_cuda():
        if words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif Path(words[0]).stem == "train":
            tiny_training(words)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")


def tiny_training(words: list[str]) -> None:
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    bench: Any = importlib.import_module("train")
    from emulated.test_gpu_benchmarks import OPTIONS, TINY

    from pipelines.saliency import speed

    recipe = bench.load_recipe
    bench.load_recipe = lambda name, settings: recipe(name, [*settings, *TINY])
    bench.COPIED["cuda"], speed.SIDE["cuda"] = 1 << 20, 64
    sys.argv = [*words, *OPTIONS["train"].split()]
    bench.main()


if __name__ == "__main__":
    main(sys.argv[1:])
