"""Commands whose --out is an address."""

from __future__ import annotations

import random
import tarfile
import time
from pathlib import Path

import pytest
from bucket_server import Bucket, bucket, files_of, objects_of, on_machine
from fork_server import ForkServer
from noise_shards import noise_shards
from small_3die import make_tar as make_object_tar
from small_3die import make_tree
from small_backbone import small
from small_images import make_folder
from test_build_by_many import builders, start
from typer.testing import CliRunner

import cli
from pipelines.build.images import shard_images
from pipelines.sources import open_source
from shards.building.store_build import staging_folder

__all__ = ["bucket", "builders"]
SPLITS = ("train", "val")


def test_a_command_writes_to_an_address(bucket: Bucket, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "photos", [f"{s}/{c}/{n}.png" for s in SPLITS for c in "ab" for n in "12"])
    command = ["shard", "folder", "--source", str(source), "--size", "16", "--samples-per-shard", "3", "--workers", "0"]

    def run(out: object, *more: str):
        return CliRunner().invoke(cli.seqjepa_data_app, [*command, "--out", str(out), *more])

    address = f"{bucket.address}/sets/photos"
    made = run(address)
    assert made.exit_code == 0, made.output
    assert run(tmp_path / "set").exit_code == 0
    assert objects_of(bucket, address) == files_of(tmp_path / "set")
    again = run(address)
    assert again.exit_code == 0, again.output
    other = run(address, "--limit", "2")
    assert (other.exit_code, other.output.count("\n")) == (2, 1)
    assert "choose another address" in other.output


def test_bad_input_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    source = make_folder(tmp_path / "photos", ["a/1.png", "b/2.png"])
    (source / "a" / "1.png").write_bytes(b"no image")
    command = ["shard", "folder", "--source", source, "--size", "16", "--workers", "0"]
    done = CliRunner().invoke(
        cli.seqjepa_data_app, [str(word) for word in [*command, "--out", f"{bucket.address}/one"]]
    )
    assert done.exit_code == 2, done.output
    assert not bucket.objects
    assert not staging_folder(f"{bucket.address}/one").exists()


KILLS = 50


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_the_same_set(bucket: Bucket, builders: ForkServer, tmp_path: Path) -> None:
    """Two builders at a time, each in a process of its own; no reader sees a set before it is whole."""
    names = [f"{split}/{label}/{number:02}.png" for split in SPLITS for label in "ab" for number in range(12)]
    source, rng, killed, number = make_folder(tmp_path / "photos", names), random.Random(0), 0, 0
    shard_images(open_source("folder", source), tmp_path / "set", samples_per_shard=2, workers=0)
    whole = files_of(tmp_path / "set")
    while killed < KILLS:
        address = f"{bucket.address}/set-{number}"
        number += 1
        seconds = 1.0
        while "_meta/dataset.json" not in objects_of(bucket, address):
            crowd = [start(builders, source, address) for _ in range(2)]
            time.sleep(rng.uniform(0.1, 1.0) * seconds)
            seconds *= 1.2  # so that they get somewhere on a machine that is busy
            for builder in crowd:
                killed += builder.poll() is None
                builder.kill()
                builder.wait()
            there = objects_of(bucket, address)
            assert "_meta/dataset.json" not in there or {name: there.get(name) for name in whole} == whole
        last = start(builders, source, address)  # what a kill at the very end left, goes
        assert last.wait() == 0, last.said
        assert objects_of(bucket, address) == whole
    assert max(count for key, count in bucket.writes.items() if key.endswith(".tar")) == 1


BUILDERS = ("objects", "tars", "maps", "baked", "features", "synthetic")


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_writes_there(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At once, and prepared on one machine and worked on on another."""
    photos = make_folder(tmp_path / "photos", [f"{s}/{c}/{n}.png" for s in SPLITS for c in "ab" for n in "12"])
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for number in range(4):
            tar.add(photos / "train" / "a" / "1.png", f"{number:03}.png")
            label = tmp_path / "label.cls"
            label.write_text(str(number % 2))
            tar.add(label, f"{number:03}.cls")
    objects = make_object_tar(make_tree(tmp_path / "objects"), tmp_path / "objects.tar.gz")
    views = noise_shards(tmp_path / "noise")
    commands = {
        "objects": [
            "shard",
            "3diebench",
            "--source",
            objects,
            "--samples-per-shard",
            4,
            "--size",
            16,
            "--val-fraction",
            0.3,
        ],
        "tars": ["shard", "webdataset", "--source", tmp_path / "photos.tar", "--size", 16],
        "maps": ["build-saliency", "folder", "--source", photos, "--model", "centre-bias", "--workers", 0],
        "baked": ["bake", views, "--sequences", 2, "--views", 3],
        "features": ["features", views, "--backbone", small.__name__, "--device", "cpu"],
        "synthetic": ["synth", "3die", "--objects", 4, "--families", 2, "--views", 2, "--size", 32, "--shards"],
    }

    def run(*words: object) -> None:
        done = CliRunner().invoke(cli.seqjepa_data_app, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    for out in (f"{bucket.address}/set", tmp_path / "set"):
        run(*commands[name], "--out", out)
    assert objects_of(bucket, f"{bucket.address}/set") == files_of(tmp_path / "set")
    run("build", "prepare", *commands[name], "--out", f"{bucket.address}/prepared")
    on_machine("two", tmp_path, monkeypatch)
    run("build", "work", f"{bucket.address}/prepared")
    assert objects_of(bucket, f"{bucket.address}/prepared") == files_of(tmp_path / "set")
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith("s3")]
