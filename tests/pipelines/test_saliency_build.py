"""build-saliency: what it writes, what it is independent of, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import fake_deepgaze
import numpy as np
import pytest
import torch
from saliency_scene import contents, make_photos
from small_images import make_stl10
from typer.testing import CliRunner

from pipelines.build.plan import PlannedShard
from pipelines.commands.saliency import build_saliency_app
from pipelines.saliency import deepgaze
from pipelines.saliency.build import _workers_of_actor, build_saliency
from pipelines.saliency.deepgaze import PackageDeepGaze
from pipelines.saliency.device import chosen_devices
from pipelines.saliency.engine import Crew, MapJob
from pipelines.saliency.models import ModelChoice
from pipelines.sources import open_source
from shards.errors import FailureError, FormatError, UsageError
from shards.reader import ShardSet
from shards.verify import verify

RESIDUAL = ModelChoice("spectral-residual")
SHARD = PlannedShard("train", 0, ())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 images of three sizes, in turns."""
    return make_photos(tmp_path_factory.mktemp("photos") / "photos", 14)


def build(source: Path, out: Path, choice: ModelChoice = RESIDUAL, **options) -> ShardSet:
    options = {"samples_per_shard": 5, "workers": 0, "device": "cpu", **options}
    build_saliency(open_source("folder", source), out, choice, **options)
    return ShardSet.open(out)


def test_maps_are_those_of_each_image_alone(photos: Path, tmp_path: Path) -> None:
    found = build(photos, tmp_path / "out").images("train")
    assert verify(tmp_path / "out").ok
    records = open_source("folder", photos).records()
    assert found.keys == [record.key for record in records]
    assert found.meta["file"] == [f"{number:02d}.png" for number in range(14)]
    model = ModelChoice("spectral-residual").build("cpu")
    for sample in range(14):
        image = cv2.imread(str(photos / f"{sample:02d}.png"))[..., ::-1].copy()
        expected = model.density(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        assert (found.meta["image_height"][sample], found.meta["image_width"][sample]) == image.shape[:2]
        np.testing.assert_allclose(found.read_map(sample), expected, rtol=2e-3)


def test_workers_do_not_matter_and_log8_is_close(photos: Path, tmp_path: Path) -> None:
    plain = build(photos, tmp_path / "plain").images("train")
    build(photos, tmp_path / "workers", workers=2)
    assert contents(tmp_path / "workers") == contents(tmp_path / "plain")
    small = build(photos, tmp_path / "log8", storage="log8").images("train")
    for sample in range(len(plain)):
        np.testing.assert_allclose(small.read_map(sample), plain.read_map(sample), rtol=0.05)


def test_a_crew_makes_the_same_set(photos: Path, tmp_path: Path) -> None:
    alone = build(photos, tmp_path / "alone")
    crew = build(photos, tmp_path / "crew", processes=2, workers=1)
    assert crew.info.fingerprint == alone.info.fingerprint
    ours, theirs = alone.images("train"), crew.images("train")
    assert (ours.keys, ours.meta) == (theirs.keys, theirs.meta)
    for sample in range(len(ours)):
        np.testing.assert_allclose(theirs.read_map(sample), ours.read_map(sample), rtol=2e-3)


def test_a_finished_set_is_left_alone(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    build(photos, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    with pytest.raises(UsageError, match='model: "spectral-residual" there, "centre-bias" here'):
        build(photos, tmp_path / "out", ModelChoice("centre-bias"))
    build(photos, tmp_path / "out", ModelChoice("centre-bias"), overwrite=True)
    assert ShardSet.open(tmp_path / "out").info.provenance["saliency_model"]["model"] == "centre-bias"


def test_another_model_of_the_same_name_does_not_resume(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """What only the model itself knows (here its working size) is compared once it is there."""
    monkeypatch.setattr("pipelines.build.run_build._fill_shards", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(photos, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("pipelines.saliency.offline_models.WORKING_SIZE", 32)
    with pytest.raises(UsageError, match="model_working_size: 64 there, 32 here"):
        build(photos, tmp_path / "out")


def interrupted(*_: object) -> list[str]:
    raise KeyboardInterrupt


def test_bad_images_are_named_and_counted(photos: Path, tmp_path: Path) -> None:
    broken = make_photos(tmp_path / "broken", 6)
    (broken / "01.png").write_bytes(b"")
    (broken / "04.png").write_bytes((broken / "05.png").read_bytes()[:200])
    with pytest.raises(FormatError, match=r"1 bad so far.*01.png: "):
        build(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = build(broken, tmp_path / "out", max_bad=2)
    assert found.info.samples == 4
    left_out = found.info.provenance["left_out"]
    assert left_out["count"] == 2
    assert [name.split(":")[0] for name in left_out["names"]] == ["01.png", "04.png"]


@pytest.mark.slow
def test_bad_images_of_a_crew_are_counted(tmp_path: Path) -> None:
    broken = make_photos(tmp_path / "broken", 6)
    (broken / "01.png").write_bytes(b"")
    with pytest.raises(FormatError, match="1 bad so far"):
        build(broken, tmp_path / "crew", processes=2)


def test_bad_images_of_finished_shards_still_count(tmp_path: Path, monkeypatch) -> None:
    broken = make_photos(tmp_path / "broken", 6)
    for name in ("00.png", "05.png"):
        (broken / name).write_bytes(b"")
    with pytest.raises(FormatError, match="2 bad so far"):
        build(broken, tmp_path / "out", samples_per_shard=3, max_bad=1)
    assert (tmp_path / "out" / "train-000000.tar").exists()
    with pytest.raises(FormatError, match=r"2 bad so far.*00.png.*05.png"):
        build(broken, tmp_path / "out", samples_per_shard=3, max_bad=1)
    assert build(broken, tmp_path / "out", samples_per_shard=3, max_bad=2).info.samples == 4


def test_stl10_through_the_command(tmp_path: Path) -> None:
    make_stl10(tmp_path / "stl", train=4, test=3, unlabeled=5)
    arguments = ["stl10", "--source", str(tmp_path / "stl"), "--out", str(tmp_path / "out"), "--limit", "3", "--json"]
    result = CliRunner().invoke(build_saliency_app, [*arguments, "--model", "spectral-residual", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "spectral residual (Hou and Zhang 2007), not DeepGaze" in json.dumps(json.loads(result.stdout))
    found = ShardSet.open(tmp_path / "out")
    assert {split: len(found.images(split)) for split in found.splits} == {"train": 3, "test": 3, "unlabeled": 3}
    index = found.images("train")
    assert index.sizes.tolist() == [[96, 96]] * 3
    assert index.labels.tolist() == [0, 1, 2]
    assert "--model spectral-residual" in found.info.provenance["command"]
    assert "input" not in found.info.provenance["command"]


def test_deepgaze_with_a_stand_in_for_its_package(photos: Path, tmp_path: Path, monkeypatch) -> None:
    fake_deepgaze.install(monkeypatch)
    choice = ModelChoice("deepgaze-iie", forward="package", **fake_deepgaze.write_files(tmp_path, monkeypatch))
    found = build(photos, tmp_path / "out", choice)
    assert found.info.name == "folder-deepgaze-iie"
    weights = found.info.provenance["saliency_model"]["weights_sha256"]
    assert found.info.fingerprint["model_weights_sha256"] == weights
    assert found.info.fingerprint["input_scale"] == "255"
    index, records = found.images("train"), open_source("folder", photos).records()
    image = torch.from_numpy(open_source("folder", photos).read(records[3])).permute(2, 0, 1)[None]
    np.testing.assert_allclose(index.read_map(3), choice.build("cpu").density(image)[0], rtol=2e-3)
    with pytest.raises(UsageError, match='input_scale: "255" there, "author" here'):
        build(photos, tmp_path / "out", replace(choice, input_scale="author"))


class StandInForFast(PackageDeepGaze):
    """The stand-in's package has no layers for the fast forward."""

    def __init__(self, model: torch.nn.Module, precision: str) -> None:
        super().__init__(model)


def test_maps_of_two_precisions_never_get_into_one_set(photos: Path, tmp_path: Path, monkeypatch) -> None:
    fake_deepgaze.install(monkeypatch)
    monkeypatch.setattr(deepgaze, "FastDeepGaze", StandInForFast)
    plain = ModelChoice("deepgaze-iie", **fake_deepgaze.write_files(tmp_path, monkeypatch))
    half, out = replace(plain, precision="fp16"), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.build.run_build._fill_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(photos, out, half)
    for other, here in ((replace(plain, precision="bf16"), "bf16"), (plain, "fp32")):
        with pytest.raises(UsageError, match=f'model_precision: "fp16" there, "{here}" here'):
            build(photos, out, other)
    provenance = build(photos, out, half).info.provenance
    assert provenance["saliency_model"]["precision"] == "fp16"
    assert "--precision fp16" in provenance["command"]
    with pytest.raises(UsageError, match='model_precision: "fp16" there, "bf16" here'):
        build(photos, out, replace(plain, precision="bf16"))


def test_the_command_in_the_metadata_gives_the_same_set(photos: Path, tmp_path: Path, monkeypatch) -> None:
    words = ["--model", "spectral-residual", "--out-size", "16", "--val-fraction", "0.3", "--storage", "log8"]
    monkeypatch.chdir(photos.parent)
    for out in ("first", "second"):
        arguments = ["folder", "--source", photos.name, *words, "--out", str(tmp_path / out), "--device", "cpu"]
        result = CliRunner().invoke(build_saliency_app, arguments)
        assert result.exit_code == 0, result.output
        words = ShardSet.open(tmp_path / out).info.provenance["command"].split()[5:]
    assert words
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_an_actor_has_its_share_of_the_cores_for_reading(photos: Path) -> None:
    source = open_source("folder", photos)

    def workers(device: str, gpus: float, asked: int | None = None) -> int:
        cluster = SimpleNamespace(count={"CPU": 16.0, "GPU": gpus}.__getitem__)
        return _workers_of_actor(source, asked, cluster, device)

    assert (workers("cpu", 4.0), workers("cuda", 4.0), workers("cuda", 4.0, 1)) == (0, 4, 1)
    assert workers("cuda", 0.0) == 16  # that there is no GPU is said where actors are asked for


BAD_OPTIONS = {
    "no source": (["--source", "nowhere"], "nowhere is not there"),
    "storage": (["--storage", "png"], "--storage 'png' is not known; allowed are float16, log8"),
    "model": (["--model", "itti"], "model 'itti' is not known"),
    "device": (["--device", "tpu"], "--device 'tpu' is not on this machine; allowed are auto, cpu"),
    "processes": (["--device", "cpu,cpu"], "each device once"),
    "precision": (["--precision", "fp16"], "--precision fp16 is for deepgaze-iie; leave it out for spectral-residual"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_bad_options_are_one_line_and_exit_code_2(photos: Path, tmp_path: Path, kind: str) -> None:
    options, words = BAD_OPTIONS[kind]
    usual = {"--source": str(photos), "--out": str(tmp_path / "out"), "--model": "spectral-residual"}
    usual |= dict([options])
    arguments = [word for option in usual.items() for word in option]
    result = CliRunner().invoke(build_saliency_app, ["folder", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_devices() -> None:
    assert chosen_devices("cpu") == ["cpu"]
    assert chosen_devices("cpu", 3) == ["cpu"] * 3
    for name in ("cuda:77", "cuda:-1", "cuda:²"):
        with pytest.raises(UsageError, match="is not on this machine"):
            chosen_devices(name)


@pytest.mark.slow
def test_a_member_of_a_crew_that_cannot_begin(photos: Path, tmp_path: Path) -> None:
    source = open_source("folder", photos)
    job = MapJob(ModelChoice("centre-bias", centre_bias=tmp_path / "nothing.npy"), source, "float16", 0)
    with pytest.raises(UsageError, match=r"nothing.npy does not exist"):
        Crew(job, ["cpu"])


@pytest.mark.slow
def test_a_member_of_a_crew_that_dies(photos: Path) -> None:
    source = open_source("folder", photos)
    records = source.records()
    crew = Crew(MapJob(RESIDUAL, source, "float16", 0), ["cpu", "cpu"])
    try:
        crew.processes[1].kill()
        with pytest.raises(FailureError, match="the process on cpu was killed"):
            list(crew.make(iter([(SHARD, records[:7]), (SHARD, records[7:])])))
    finally:
        crew.close()
    assert all(process.exitcode is not None for process in crew.processes)
