"""Images per second of `seqjepa-data shard 3diebench`, 256 → 128 pixels, beside what one would write in its place.

    python benchmarks/shard.py [--work DIR] [--objects 200] [--rounds 3]
    python benchmarks/shard.py --manifest        # `shard manifest` beside `shard 3diebench`, of the same images

The source is a tree (and the same as tar.gz) of smooth random 256-pixel JPEGs, 50 views an object. Ours is the whole
command: listing, choosing the JPEG setting, decoding, resizing, encoding, checking every view, pixel statistics,
writing and syncing shards. `limit` is decode, resize and encode alone, in one process a core. Peers write tars of the
same members with the same JPEG setting; they check nothing and cannot resume. Medians over rounds.

`shard manifest` reads the same latents from a metadata.csv, and compares the images of both splits besides.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import resource
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from common import emit, rate, versions  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.build.encode import Frame, JpegSetting, encode_jpeg, fit_image  # noqa: E402
from pipelines.build.views import shard_views  # noqa: E402
from pipelines.sources.decode import decode_jpeg  # noqa: E402
from pipelines.sources.manifest import ManifestOptions, read_manifest  # noqa: E402
from pipelines.sources.table import TableSource  # noqa: E402
from pipelines.sources.three_diebench import ThreeDIEBenchSource  # noqa: E402
from shards.machine.environment import usable_cores  # noqa: E402
from shards.schema import THREE_DIEBENCH_PARAMS  # noqa: E402

VIEWS, SOURCE_SIDE, SIDE = 50, 256, 128
QUALITY, SUBSAMPLING = 90, "420"


def make_source(work: Path, objects: int) -> Path:
    """Images of about 17 kB, as 3DIEBench's are: smooth shading and a little noise."""
    tree = work / f"source-{objects}"
    if not (tree / "complete").exists():
        rng = np.random.default_rng(0)
        for number in range(objects):
            folder = tree / f"{number % 5:08d}" / f"object{number}"
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(VIEWS):
                coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                smooth = Image.fromarray(coarse).resize((SOURCE_SIDE, SOURCE_SIDE), Image.Resampling.BICUBIC)
                noisy = np.asarray(smooth) + rng.normal(0, 2, (SOURCE_SIDE, SOURCE_SIDE, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"image_{k}.jpg", quality=95)
                np.save(folder / f"latent_{k}.npy", rng.uniform(-1, 1, 7))
        (tree / "complete").touch()
    return tree


def make_tar(tree: Path) -> Path:
    path = tree.with_suffix(".tar.gz")
    if not path.exists():
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            tar.add(tree, "3DIEBench")
    return path


def ours(source: Path, out: Path) -> None:
    shard_views(ThreeDIEBenchSource(source, val_fraction=0.2), out, size=SIDE)


def make_manifest(tree: Path) -> Path:
    """metadata.csv beside the images: each with its object as sequence, its synset as label, and its latents."""
    path = tree / "metadata.csv"
    if not path.exists():
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            names = [field.name for field in THREE_DIEBENCH_PARAMS]
            writer.writerow(["file_name", "sequence", "label", *names])
            for image in sorted(tree.glob("*/*/image_*.jpg")):
                place = image.relative_to(tree)
                writer.writerow([place, place.parent, place.parts[0], *load_latent(image).tolist()])
    return path


def ours_from_manifest(source: Path, out: Path) -> None:
    table = read_manifest(source, ManifestOptions(val_fraction=0.2)).checked()
    shard_views(TableSource(source, table, name="manifest"), out, size=SIDE, fit="squash")


def encode_with_pil(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0", optimize=True)
    return buffer.getvalue()


def load_latent(image: Path) -> np.ndarray:
    return np.load(image.with_name(image.stem.replace("image", "latent") + ".npy"))


def convert_with_pil(path: Path) -> tuple[Path, bytes, np.ndarray]:
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return path, encode_with_pil(image), load_latent(path)


def convert_with_torchvision(path: Path) -> tuple[Path, bytes, np.ndarray]:
    from torchvision.transforms import Resize

    image = Resize((SIDE, SIDE))(Image.open(path).convert("RGB"))
    return path, encode_with_pil(image), load_latent(path)


def write_tar(converted: Iterable[tuple[Path, bytes, np.ndarray]], out: Path) -> None:
    with tarfile.open(out, "w") as tar:
        for path, data, latent in converted:
            for name, content in ((path.name, data), (f"{path.stem}.npy", latent.astype(np.float32).tobytes())):
                info = tarfile.TarInfo(f"{path.parent.name}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def pil_loop(source: Path, out: Path) -> None:
    write_tar(map(convert_with_pil, sorted(source.glob("*/*/image_*.jpg"))), out)


def torchvision_pool(source: Path, out: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        paths = sorted(source.glob("*/*/image_*.jpg"))
        write_tar(pool.imap(convert_with_torchvision, paths, chunksize=VIEWS), out)


def bare(path: Path) -> int:
    setting = JpegSetting(SUBSAMPLING, QUALITY)
    return len(encode_jpeg(fit_image(decode_jpeg(path.read_bytes()), Frame(SIDE, SIDE, "squash")), setting))


def bare_pool(source: Path, out: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        sum(pool.imap(bare, sorted(source.glob("*/*/image_*.jpg")), chunksize=VIEWS))


def measure(
    contenders: dict[str, tuple[Callable[[Path, Path], None], Path]], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Images per second of each, round by round, one after the other."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, (work, source) in contenders.items():
            rates[name].append(rate(work, source, arguments.work / "out", arguments.objects * VIEWS))
    return rates


def cpu_seconds() -> float:
    """Of this process and of workers that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def compare_manifest(tree: Path, arguments: argparse.Namespace) -> None:
    """Ratios are those of each round, in which one follows the other; of processor time too, which a busy machine
    leaves as it is."""
    make_manifest(tree)
    contenders = {"manifest": ours_from_manifest, "3diebench": ours}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name in sorted(contenders, reverse=number % 2 == 0):  # who goes first alternates
            before = cpu_seconds()
            rates[name].append(rate(contenders[name], tree, arguments.work / "out", arguments.objects * VIEWS))
            cpu[name].append(cpu_seconds() - before)
    emit(
        "shard_manifest_256_to_128",
        "images/s",
        median(rates["manifest"]),
        {"shard_3diebench": median(rates["3diebench"])},
        ratio_best_peer=median(a / b for a, b in zip(rates["manifest"], rates["3diebench"], strict=True)),
        ratio_cpu=median(b / a for a, b in zip(cpu["manifest"], cpu["3diebench"], strict=True)),
        images=arguments.objects * VIEWS,
        rounds=rates,
        cpu_seconds=cpu,
        versions=versions("pillow", "simplejpeg", "numpy", "pyarrow"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "seqjepa-shard-benchmark")
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--manifest", action="store_true")
    arguments = parser.parse_args()
    tree = make_source(arguments.work, arguments.objects)
    if arguments.manifest:
        compare_manifest(tree, arguments)
        return
    tar = make_tar(tree)
    contenders = {
        "ours": (ours, tree),
        "ours_from_tar_gz": (ours, tar),
        "pil_loop_one_process": (pil_loop, tree),
        "torchvision_pool": (torchvision_pool, tree),
        "limit": (bare_pool, tree),
    }
    rates = measure(contenders, arguments)
    found = {name: median(values) for name, values in rates.items()}
    emit(
        "shard_3diebench_256_to_128",
        "images/s",
        found["ours"],
        {name: found[name] for name in ("pil_loop_one_process", "torchvision_pool")},
        found["limit"],
        ours_from_tar_gz=found["ours_from_tar_gz"],
        versions=versions("pillow", "simplejpeg", "numpy", "torchvision"),
    )


if __name__ == "__main__":
    main()
