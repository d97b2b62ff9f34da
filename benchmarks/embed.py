"""Images per second of `seqjepa embed` on a folder of JPEGs, beside the bare encoder on decoded tensors.

    python benchmarks/embed.py [--work DIR] [--images 5000] [--side 128] [--rounds 3] [--device cpu]
    python benchmarks/embed.py --memory 1000000

Ours is the whole of embed_run but the imports: opening the run, listing the folder, decoding, encoding, writing parts
and the .parquet. `encoder` is the run's ResNet-18 in eval mode on normalised float tensors that are there already, in
the batch size and memory format that are fastest here; `decoding` is PIL's decoding to RGB alone, in as many threads
as cores. The limit is the slower of the two. Contenders take turns; figures are medians, ratios those of each round.

--memory: the peak of resident memory while N rows of 512 numbers are embedded, whose pixels and features are made up
(4×4 pixels, no encoder): that of lists, parts and the written file. `before` is that of the process with the model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from PIL import Image  # noqa: E402

import seqjepa  # noqa: E402
from seqjepa.data.sequence import normalise  # noqa: E402
from seqjepa.embedding import inputs  # noqa: E402
from seqjepa.embedding import run as embedding  # noqa: E402
from seqjepa.embedding.run import Asked, embed_run  # noqa: E402
from seqjepa.paper.sets import NORMALISATIONS  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method, save_weights  # noqa: E402
from seqjepa.training.run import DataInfo, RunPlan, claimed  # noqa: E402
from shards.machine.environment import usable_cores  # noqa: E402

BATCHES = (4, 8, 16, 32, 256)


def make_run(work: Path, side: int) -> Path:
    """seq-JEPA on rotations with random weights, as `seqjepa train` would leave it."""
    run, config = work / f"run-{side}", load_recipe("3die-rot-M3", [f"data.image_size={side}"])
    if not (run / "model.safetensors").exists():
        data = DataInfo("rotation", 4, *NORMALISATIONS["3diebench"], side, side)
        with claimed(run, RunPlan(config, data, {"name": "none", "train": "0"})):
            save_weights(initial_method(config, 4), run / "model.safetensors")
    return run


def make_images(work: Path, count: int, side: int) -> Path:
    """Smooth shading and a little noise, as renderings have: about 5 kB at 128 pixels."""
    folder = work / f"jpegs-{count}-{side}"
    if not (folder / "complete").exists():
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            noisy = np.asarray(smooth) + rng.normal(0, 2, (side, side, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=90)
        (folder / "complete").touch()
    return folder


def ours(run: Path, images: Path, work: Path, device: str) -> float:
    """Seconds. The file and its parts are gone before."""
    out = work / "features.parquet"
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    facts = embed_run(run, out, Asked(images=images), device=device, progress=False)
    spent = time.perf_counter() - begin
    assert not facts["broken_files"]
    return spent


def read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def decode_all(images: Path) -> tuple[float, list[np.ndarray]]:
    paths = sorted(images.glob("*.jpg"))
    begin = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(read_rgb, paths))
    return time.perf_counter() - begin, found


@torch.inference_mode()
def encode_all(model: Any, views: torch.Tensor, batch: int) -> float:
    """Seconds of the encoder alone on normalised float tensors [n, 3, H, W]."""
    begin = time.perf_counter()
    for part in views.split(batch):
        model.method.embed(part)
    if views.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def best_way(model: Any, views: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The fastest batch size and memory format, on some of the images."""
    few = views[: 64 if not views.is_cuda else 2048]
    formats = {name: few.contiguous(memory_format=name) for name in (torch.contiguous_format, torch.channels_last)}
    trials = {(name, batch): encode_all(model, part, batch) for name, part in formats.items() for batch in BATCHES}
    name, batch = min(trials, key=trials.__getitem__)
    return views.contiguous(memory_format=name), batch


def compare(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(usable_cores())
    work, count = arguments.work, arguments.images
    run, images = make_run(work, arguments.side), make_images(work, count, arguments.side)
    model = seqjepa.load(run, arguments.device)
    pixels = np.stack(decode_all(images)[1])
    stats = tuple(model.data.mean), tuple(model.data.std)
    views = torch.cat(
        [normalise(part.to(model.device), *stats) for part in torch.from_numpy(pixels).permute(0, 3, 1, 2).split(256)]
    )
    views, batch = best_way(model, views)
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: ours(run, images, work, arguments.device),
        "encoder": lambda: encode_all(model, views, batch),
        "decoding": lambda: decode_all(images)[0],
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name in sorted(contenders, reverse=number % 2 == 1):  # who goes first alternates
            rates[name].append(count / contenders[name]())
    found = {name: median(values) for name, values in rates.items()}
    ratios = [a / min(b, c) for a, b, c in zip(rates["ours"], rates["encoder"], rates["decoding"], strict=True)]
    emit(
        f"embed_jpegs_{arguments.side}",
        "images/s",
        found["ours"],
        {},
        min(found["encoder"], found["decoding"]),
        ratio_limit=median(ratios),
        encoder=found["encoder"],
        encoder_batch=batch,
        decoding=found["decoding"],
        images=count,
        device=str(model.device),
        rounds=rates,
        versions=versions("torch", "pillow", "numpy", "pyarrow"),
    )


def made_up(rows: int) -> inputs.Source:
    """Images that are nowhere, under names of 40 letters."""
    grey = np.zeros((65_536, 4, 4, 3), np.uint8)

    def read(part: range, size: int, threads: int) -> Iterator[inputs.Chunk]:
        for start in range(part.start, part.stop, size):
            at = np.arange(start, min(start + size, part.stop))
            yield inputs.Chunk([(at, grey[: len(at)])])

    keys = [f"class{number // 1000:06d}/image_of_some_name_{number:010d}.jpg" for number in range(rows)]
    none = np.zeros((rows, 0), np.float32)
    return inputs.Source("", keys, np.arange(rows), np.zeros(rows, np.int32), np.full(rows, -1), f"{rows}", read, none)


def resident(name: str) -> float:
    """MiB: VmRSS, now; VmHWM, the peak. Pages of mapped parts count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measure_memory(arguments: argparse.Namespace) -> None:
    """One process, one format: the peak never falls."""
    run = make_run(arguments.work, arguments.side)
    embedding.open_folder = lambda folder, size_for: made_up(arguments.memory)  # type: ignore[assignment]
    model = seqjepa.load(run, "cpu")
    embed, values = model.embed, torch.rand(65_536, 512)
    model.embed = lambda images: values[: len(images)] if getattr(images, "ndim", 3) == 4 else embed(images)  # type: ignore[method-assign]
    embedding.load = lambda *_: model  # type: ignore[assignment]
    import pyarrow.parquet  # noqa: F401

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    out = arguments.work / f"memory{arguments.format}"
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    embed_run(run, out, Asked(images=arguments.work), device="cpu", progress=False)
    peak = resident("VmHWM")
    spent = time.perf_counter() - begin
    size = out.stat().st_size / 2**20
    out.unlink()
    emit(f"embed_memory_{arguments.memory}", "MiB above start", peak - before, {}, before=before, file_mib=size,
         rows=arguments.memory, format=arguments.format, seconds=spent)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "seqjepa-embed-benchmark")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", type=int, default=0, metavar="N")
    parser.add_argument("--format", default=".parquet", choices=(".parquet", ".npz", ".npy"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    measure_memory(arguments) if arguments.memory else compare(arguments)


if __name__ == "__main__":
    main()
