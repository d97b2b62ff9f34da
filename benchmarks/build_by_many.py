"""Builds on a Ray cluster: from one node of one core to two, and how many cores one reader of a tar.gz keeps busy.

    python benchmarks/build_by_many.py [--work DIR] [--objects 200] [--rounds 3] [--parts nodes cores waiting feeding]

The nodes are Ray's own test cluster: raylets of one core each on this machine. `shard 3diebench` (benchmarks/shard.py's
source, 50 views an object, 256 → 128 pixels) runs on one of them and on both, in turn; the ratio is that of each round.
`nodes` lets the driver and the cluster's servers run wherever there is room: on a machine of two cores beside one node,
and in its way with two. `cores` gives them and the nodes one core, or two: a machine twice as large. `here` is the same
command in one process; `once_prepared` is without what comes before the first shard: listing, the digest of the files
and the choice of the JPEG setting, of which nodes do a part (`listing_s`). `finishing_s` is what comes after the last:
one process looks whether the source has changed, and joins the indexes. `waiting` does so with 160 small images, for
each of which a worker waits 50 ms and does no work to speak of, so that others on the machine matter little: what
listing, claims, tasks and writing leave. `feeding` reads the tar.gz as the driver does, and transforms objects as a
worker does, in processor time of one core each: `cores_fed` is how many cores one reader feeds. The last line is what a
task costs beyond its work.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

import numpy as np  # noqa: E402
from common import emit, rate, versions  # noqa: E402
from PIL import Image  # noqa: E402
from shard import SIDE, SOURCE_SIDE, VIEWS, make_source, make_tar  # noqa: E402

from pipelines.build import images, views  # noqa: E402
from pipelines.build.encode import Frame, JpegSetting  # noqa: E402
from pipelines.build.fill import Transformed  # noqa: E402
from pipelines.build.images import ImageItem, ImageJob, shard_images, to_sample  # noqa: E402
from pipelines.build.source_watch import SourceWatch  # noqa: E402
from pipelines.build.transform import ViewJob, transform  # noqa: E402
from pipelines.build.views import shard_views  # noqa: E402
from pipelines.sources import open_source  # noqa: E402
from pipelines.sources.three_diebench import ThreeDIEBenchSource  # noqa: E402
from shards.engines.ray_engine import engine_of, ray_cluster  # noqa: E402
from shards.writer import SetBuilder  # noqa: E402

OBJECTS_A_SHARD, STORE_BYTES = 4, 256 << 20
TRANSFORMED = 40
WAITED, WAITED_A_SHARD, SECONDS_WAITED = 160, 4, 0.05
PARTS = ("nodes", "cores", "waiting", "feeding")
STAGES = ("once_prepared", "listing_s", "finishing_s")

SPENT: dict[str, list[float]] = {"build": [], "work": [], "finishing": []}
"""Seconds of each build of views: of all of it; from when its source was listed and it was settled what goes into which
shard; from its last shard on."""


def build(source: Path, out: Path) -> None:
    start = time.perf_counter()
    opened = ThreeDIEBenchSource(source, val_fraction=0.2)
    shard_views(opened, out, size=SIDE, samples_per_shard=OBJECTS_A_SHARD, workers=0)
    SPENT["build"].append(time.perf_counter() - start)


def note_time(owner: Any, name: str, part: str, adds: bool = False) -> None:
    """From now on each call of this function of `owner` is a number in SPENT[part], or `adds` to the last."""
    run = getattr(owner, name)

    def noted(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = run(*arguments, **options)
        spent = time.perf_counter() - start
        if adds:
            SPENT[part][-1] += spent
        else:
            SPENT[part].append(spent)
        return result

    setattr(owner, name, noted)


@contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """This thread and all processes that it starts; None: wherever they like."""
    usable = os.sched_getaffinity(0)
    if count and count > len(usable):
        raise SystemExit(f"this part needs {count} cores, and there are {len(usable)}")
    os.sched_setaffinity(0, sorted(usable)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


@contextmanager
def nodes(count: int) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    one: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(**one)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def nothing(item: int) -> int:
    return item


def waited(item: ImageItem, job: ImageJob) -> Transformed:
    time.sleep(SECONDS_WAITED)
    return to_sample(item, job)


def build_waiting(folder: Path, out: Path) -> None:
    shard_images(open_source("folder", folder), out, samples_per_shard=WAITED_A_SHARD, workers=0, encoding="raw")


def make_images(work: Path) -> Path:
    folder = work / "waited"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(WAITED):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return folder


Rates = dict[str, list[float]]


def scaling(
    work_on: Callable[[Path, Path], None], source: Path, out: Path, images: int, rounds: int, pinned: bool = False
) -> Rates:
    """Images per second of each (of STAGES seconds), round by round; the first build of each cluster, which starts
    workers, is left out."""
    rates: Rates = {name: [] for name in ("here", "one_node", "two_nodes")}
    rates |= {f"{name}_{what}": [] for name in ("one_node", "two_nodes") for what in STAGES if work_on is build}
    for _ in range(rounds):
        rates["here"].append(rate(work_on, source, out, images))
        for name, count in (("one_node", 1), ("two_nodes", 2)):
            with on_cores(count if pinned else None), nodes(count) as address, engine_of("ray", address):
                rate(work_on, source, out, images)
                rates[name].append(rate(work_on, source, out, images))
                if work_on is build:
                    whole, worked, finishing = (spent[-1] for spent in SPENT.values())
                    for what, number in zip(STAGES, (images / worked, whole - worked, finishing), strict=True):
                        rates[f"{name}_{what}"].append(number)
    return rates


def ratio(rates: Rates, when: str = "") -> float:
    return median(two / one for one, two in zip(rates[f"one_node{when}"], rates[f"two_nodes{when}"], strict=True))


def task_overhead(tasks: int = 200) -> float:
    """Seconds."""
    with nodes(1) as address, ray_cluster(address) as cluster:
        list(cluster.map_tasks(nothing, range(8), str))
        start = time.perf_counter()
        list(cluster.map_tasks(nothing, range(tasks), str))
        return (time.perf_counter() - start) / tasks


def feeding(tar: Path) -> dict[str, float]:
    """Processor time of one core each, so that others on the machine do not matter."""
    source = ThreeDIEBenchSource(tar, val_fraction=0.2)
    start = time.process_time()
    records = source.records()
    listed = time.process_time()
    objects = list(source.read(records, range(len(records))))
    read = time.process_time()
    job = ViewJob(Frame(SIDE, SIDE, "squash"), JpegSetting("420", 90), (SOURCE_SIDE, SOURCE_SIDE), 7)
    for content in objects[:TRANSFORMED]:
        transform(content, job=job)
    per_object = (time.process_time() - read) / min(TRANSFORMED, len(objects))
    megabytes = tar.stat().st_size / 1e6
    return {
        "listing_mb_per_s": megabytes / (listed - start),
        "reading_mb_per_s": megabytes / (read - listed),
        "reader_objects_per_s": len(objects) / (read - listed),
        "core_objects_per_s": 1 / per_object,
        "cores_fed": len(objects) / (read - listed) * per_object,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "seqjepa-shard-benchmark")
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    tree, out, rounds = make_source(arguments.work, arguments.objects), arguments.work / "out", arguments.rounds
    fed = feeding(make_tar(tree)) if "feeding" in arguments.parts else None
    note_time(views, "run_build", "work")
    note_time(SourceWatch, "end", "finishing")
    note_time(SetBuilder, "finish", "finishing", adds=True)
    for part in ("nodes", "cores"):
        if part in arguments.parts:
            told(f"build_on_ray_{part}", scaling(build, tree, out, arguments.objects * VIEWS, rounds, part == "cores"))
    if "waiting" in arguments.parts:
        images.to_sample = waited
        told("build_on_ray_waiting", scaling(build_waiting, make_images(arguments.work), out, WAITED, rounds))
    if fed:
        used = versions("ray", "pillow", "simplejpeg", "numpy")
        peers = {"a core's transforms": fed["core_objects_per_s"]}
        emit("build_from_tar_gz", "objects/s", fed["reader_objects_per_s"], peers, **fed, versions=used)
        emit("build_on_ray_tasks", "s", task_overhead(), {}, versions=used)


def told(name: str, rates: Rates) -> None:
    worked = {"scaling_once_prepared": ratio(rates, "_once_prepared")} if "one_node_once_prepared" in rates else {}
    emit(
        name,
        "images/s",
        median(rates["two_nodes"]),
        {"one_node": median(rates["one_node"]), "here": median(rates["here"])},
        scaling_1_to_2_nodes=ratio(rates),
        **worked,
        serial_s={name: median(seconds) for name, seconds in rates.items() if name.endswith("_s")},
        rounds=rates,
        versions=versions("ray", "pillow", "simplejpeg", "numpy"),
    )


if __name__ == "__main__":
    main()
