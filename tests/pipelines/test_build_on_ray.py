"""Sets built on the nodes of a Ray cluster: the same bytes, with a node lost on the way or the driver killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_server import Bucket, files_of, objects_of, on_machine, serving_bucket
from python_path import python_path
from ray_nodes import Nodes, ray_nodes
from small_3die import make_tar, make_tree, same_folders, shard_3diebench
from small_images import make_folder

from pipelines.build import images
from pipelines.build.fill import Transformed
from pipelines.build.images import ImageItem, ImageJob, shard_images, to_sample
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.sources import open_source
from shards.engines.ray_engine import engine_of
from shards.errors import FormatError, UsageError

pytestmark = pytest.mark.tools
NAMES = [f"{split}/{label}/{number:02}.png" for split in ("train", "val") for label in "ab" for number in range(9)]
SCRIPT = """
import sys
from pathlib import Path
import test_build_on_ray
from pipelines.build import images
from pipelines.sources import open_source
from shards.engines.ray_engine import engine_of
images.to_sample = test_build_on_ray.slowly
with engine_of("ray", sys.argv[3]):
    images.shard_images(open_source("folder", sys.argv[1]), Path(sys.argv[2]), samples_per_shard=2)
"""


def slowly(item: ImageItem, job: ImageJob) -> Transformed:
    time.sleep(0.1)
    return to_sample(item, job)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(3) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos") / "photos", NAMES)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "set"
    build(photos, out)
    return out


def build(photos: Path, out: Path, **options: Any) -> None:
    shard_images(open_source("folder", photos), out, samples_per_shard=2, **{"workers": 0, **options})


def when(out: Path, shards: int, act: Callable[[], object]) -> threading.Thread:
    """Does it as soon as so many shards are there."""

    def wait() -> None:
        while len(list(out.glob("*.tar"))) < shards:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_one_of_three_nodes_is_lost(
    nodes: Nodes, photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "to_sample", slowly)
    nodes.add()
    loser = when(tmp_path / "set", 3, nodes.kill_one)
    with engine_of("ray", nodes.address):
        build(photos, tmp_path / "set")
    loser.join()
    same_folders(tmp_path / "set", whole)


def test_a_driver_that_is_killed_goes_on(nodes: Nodes, photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    env = {**os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, "-c", SCRIPT, str(photos), str(out), nodes.address]
    for shards, number in ((3, signal.SIGKILL), (8, signal.SIGINT)):
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        when(out, shards, lambda process=process, number=number: process.send_signal(number)).join()
        assert process.wait(300) != 0
    with engine_of("ray", nodes.address):
        build(photos, out)
    same_folders(out, whole)


def test_here_and_on_a_cluster_at_once(
    nodes: Nodes, photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "to_sample", slowly)
    script = SCRIPT.replace('with engine_of("ray", sys.argv[3])', "if True")
    command = [sys.executable, "-c", script, str(photos), str(tmp_path / "set"), "-"]
    helper = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": python_path()})
    with engine_of("ray", nodes.address):
        build(photos, tmp_path / "set")
    assert helper.wait(300) == 0
    same_folders(tmp_path / "set", whole)


@pytest.mark.parametrize("kind", ["tree", "tar.gz"])
def test_objects_of_a_tree_and_of_a_stream(nodes: Nodes, tmp_path: Path, kind: str) -> None:
    tree = make_tree(tmp_path / "objects", objects=5)
    source = tree if kind == "tree" else make_tar(tree, tmp_path / "objects.tar.gz")
    options = {"size": 32, "samples_per_shard": 2, "val_fraction": 0.4}
    shard_3diebench(source, tmp_path / "here", workers=0, **options)
    with engine_of("ray", nodes.address):
        shard_3diebench(source, tmp_path / "there", **options)
    same_folders(tmp_path / "there", tmp_path / "here")


def test_saliency_maps_by_actors(nodes: Nodes, photos: Path, tmp_path: Path) -> None:
    def make(out: Path, device: str) -> None:
        choice = ModelChoice("spectral-residual")
        build_saliency(open_source("folder", photos), out, choice, samples_per_shard=4, device=device, workers=0)

    make(tmp_path / "here", "cpu")
    loser = when(tmp_path / "there", 2, nodes.kill_one)
    with engine_of("ray", nodes.address):
        make(tmp_path / "there", "auto")
        loser.join()
        nodes.add()
        with pytest.raises(UsageError, match="no GPU"):
            make(tmp_path / "gpu", "cuda")
    same_folders(tmp_path / "there", tmp_path / "here")


def test_what_is_bad_is_counted_over_all_nodes(nodes: Nodes, photos: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "bad", NAMES)
    for name in NAMES[3:9:3]:
        (folder / name).write_bytes(b"no picture")
    build(folder, tmp_path / "here", max_bad=2)
    with engine_of("ray", nodes.address):
        build(folder, tmp_path / "there", max_bad=2)
        with pytest.raises(FormatError, match="2 bad so far, --max-bad allows 1"):
            build(folder, tmp_path / "refused", max_bad=1)
    same_folders(tmp_path / "there", tmp_path / "here")


def test_the_command(nodes: Nodes, photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = ["shard", "folder", "--source", str(photos), "--out", str(out), "--samples-per-shard", "2", "--json"]
    found = run_data_command([*words, "--engine", "ray", "--address", nodes.address])
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["kind"] == "image"
    same_folders(out, whole)
    for wrong, said in (
        (["--engine", "spark"], "--engine is 'spark'; allowed are local and ray"),
        (["--address", "auto"], "--address is for --engine ray"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ):
        found = run_data_command([*words, *wrong])
        assert (found.returncode, found.stderr.count("\n")) == (2, 1)
        assert said in found.stderr


def test_nodes_send_their_shards_to_a_store(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "to_sample", slowly)
    with serving_bucket(monkeypatch) as bucket:
        on_machine("driver", tmp_path, monkeypatch)
        with ray_nodes(3) as nodes, engine_of("ray", nodes.address):  # which have the bucket's environment
            loser = when_sent(bucket, 3, nodes.kill_one)
            shard_images(open_source("folder", photos), f"{bucket.address}/set", samples_per_shard=2, workers=0)
            loser.join()
        assert objects_of(bucket, f"{bucket.address}/set") == files_of(whole)


def test_a_set_that_was_prepared_at_an_address(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_bucket(monkeypatch) as bucket:
        on_machine("driver", tmp_path, monkeypatch)
        out = f"{bucket.address}/set"
        words = ["shard", "folder", "--source", str(photos), "--samples-per-shard", "2", "--out", out]
        with ray_nodes(2) as nodes:
            for step in (["prepare", *words], ["run", "--engine", "ray", "--address", nodes.address, out]):
                found = run_data_command(["build", *step])
                assert found.returncode == 0, found.stderr
        assert objects_of(bucket, out) == files_of(whole)


def when_sent(bucket: Bucket, shards: int, act: Callable[[], object]) -> threading.Thread:
    def wait() -> None:
        while sum(name.endswith(".tar") for name in list(bucket.objects)) < shards:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def run_data_command(words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cli import seqjepa_data_app; seqjepa_data_app()", *words]
    env = {**os.environ, "PYTHONPATH": python_path()}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
