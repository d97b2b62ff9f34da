"""Images per second of `seqjepa-data shard webdataset`, 256 → 128 pixels, beside `shard folder` on the same files.

    python benchmarks/shard_webdataset.py [--work DIR] [--images 5000] [--rounds 5]

The tars are written by webdataset's own TarWriter, 1000 samples each: the JPEG as it lies in the folder, cls, JSON and
txt. Both commands are whole: listing, fingerprint of the content, choosing the JPEG setting, decoding, resizing,
encoding, checking, writing and syncing shards. `webdataset_loop` reads the tars with webdataset, resizes with PIL and
writes with TarWriter, in one process: it notices no damage and cannot resume. Medians over rounds, in turn.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from common import emit, rate, versions  # noqa: E402
from PIL import Image  # noqa: E402
from webdataset.compat import WebDataset  # noqa: E402
from webdataset.writer import TarWriter  # noqa: E402

from pipelines.build.images import shard_images  # noqa: E402
from pipelines.sources.folder import FolderSource  # noqa: E402
from pipelines.sources.webdataset import WebdatasetImages  # noqa: E402
from pipelines.sources.webdataset.options import TarOptions  # noqa: E402
from pipelines.sources.webdataset.spool import Spool  # noqa: E402

SOURCE_SIDE, SIDE, IN_A_TAR, CLASSES = 256, 128, 1000, 10
SETTING = "420-90"


def make_source(work: Path, images: int) -> tuple[Path, str]:
    """(folder, tars in webdataset's spelling) of the same images, about 17 kB each."""
    folder, tars = work / f"folder-{images}", work / f"tars-{images}"
    if not (tars / "complete").exists():
        rng = np.random.default_rng(0)
        tars.mkdir(parents=True, exist_ok=True)
        for begin in range(0, images, IN_A_TAR):
            with TarWriter(str(tars / f"{begin // IN_A_TAR:05d}.tar")) as writer:
                for i in range(begin, min(begin + IN_A_TAR, images)):
                    data = make_image(rng)
                    path = folder / f"class{i % CLASSES}" / f"{i:09d}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    beside = {"json": {"width": SOURCE_SIDE, "key": f"{i:09d}"}, "txt": f"image {i}"}
                    writer.write({"__key__": f"{i:09d}", "jpg": data, "cls": i % CLASSES, **beside})
        (tars / "complete").touch()
    return folder, f"{tars}/{{00000..{(images - 1) // IN_A_TAR:05d}}}.tar"


def make_image(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((SOURCE_SIDE, SOURCE_SIDE), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + rng.normal(0, 2, (SOURCE_SIDE, SOURCE_SIDE, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def ours(tars: str, out: Path) -> None:
    spool = Spool(out.with_name("spool"))
    shard_images(WebdatasetImages(TarOptions((tars,)), spool), out, size=SIDE, jpeg_quality=SETTING)


def ours_through_a_pipe(tars: str, out: Path) -> None:
    spool = Spool(out.with_name("spool"))
    shard_images(WebdatasetImages(TarOptions((f"pipe:cat {tars}",)), spool), out, size=SIDE, jpeg_quality=SETTING)
    spool.remove()


def folder_command(folder: str, out: Path) -> None:
    shard_images(FolderSource(Path(folder)), out, size=SIDE, jpeg_quality=SETTING)


def webdataset_loop(tars: str, out: Path) -> None:
    with TarWriter(str(out)) as writer:
        rows: Any = WebDataset(tars, shardshuffle=False, empty_check=False).decode("pil")
        for row in rows:
            small = row["jpg"].resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=90, subsampling="4:2:0", optimize=True)
            writer.write({"__key__": row["__key__"], "jpg": buffer.getvalue(), "cls": row["cls"], "json": row["json"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "seqjepa-webdataset-benchmark")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder, tars = make_source(arguments.work, arguments.images)
    contenders = {
        "ours": (ours, tars),
        "shard_folder": (folder_command, str(folder)),
        "ours_through_a_pipe": (ours_through_a_pipe, tars),
        "webdataset_loop": (webdataset_loop, tars),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, (work, source) in contenders.items():
            rates[name].append(rate(work, source, arguments.work / "out", arguments.images))
    found = {name: median(values) for name, values in rates.items()}
    emit(
        "shard_webdataset_256_to_128",
        "images/s",
        found["ours"],
        {"webdataset_loop": found["webdataset_loop"]},
        ours_through_a_pipe=found["ours_through_a_pipe"],
        shard_folder=found["shard_folder"],
        ratio_shard_folder=median(a / b for a, b in zip(rates["ours"], rates["shard_folder"], strict=True)),
        versions=versions("webdataset", "pillow", "simplejpeg", "numpy"),
    )


if __name__ == "__main__":
    main()
