"""Videos → shards: every stored frame is the one that its row names, whoever decoded it, however interrupted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_3die import same_folders
from small_videos import number_of, write_video

from pipelines.build.encode import Frame
from pipelines.build.fill import OpenShard
from pipelines.build.pool import _grouped
from pipelines.build.transform import DecodedTogether
from pipelines.build.views import shard_views
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.table import TableSource, ViewTable
from pipelines.sources.video.pictures import VideoPictures
from shards.errors import FormatError
from shards.reader import ShardSet
from shards.schema import ParamField
from shards.verify import verify

FRAMES = {"a.mp4": 120, "b.mkv": 50}
FPS = 25


def where(row: int) -> str:
    return f"metadata.csv, row {row + 1}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "a.mp4", FRAMES["a.mp4"], g=250, bf=3)
    write_video(root / "b.mkv", FRAMES["b.mkv"], g=10, x264_params="scenecut=0")
    return root


def table_of(root: Path, by_time: bool = False) -> ViewTable:
    """Four sequences: two episodes that share a file, every second frame of it, and one that goes on in the next."""
    rows = [("one", 0, k) for k in range(40)] + [("two", 0, k) for k in range(40, 100)]
    rows += [("three", 0, k) for k in range(0, 120, 2)]
    rows += [("video", 0, k) for k in range(110, 120)] + [("video", 1, k) for k in range(50)]
    names = ["one", "three", "two", "video"]
    rows.sort(key=lambda row: names.index(row[0]))
    of = np.array([names.index(name) for name, _, _ in rows], np.int32)
    videos, numbers = (np.array([row[i] for row in rows]) for i in (1, 2))
    steps = np.concatenate([np.arange((of == k).sum()) for k in range(4)]).astype(np.int32)
    if by_time:
        pictures = VideoPictures.by_time(root, list(FRAMES), videos, numbers / FPS, where, Mistakes())
    else:
        pictures = VideoPictures.by_number(root, list(FRAMES), videos, numbers, where, Mistakes())
    assert pictures is not None
    params = np.stack([videos, numbers], 1).astype(np.float32)
    fields = (ParamField("video", "1"), ParamField("number", "1"))
    splits = ["train", "val", "train", "train"]
    return ViewTable(names, of, steps, True, params, fields, splits, [None] * 4, pictures, where=where)


def build(
    root: Path, out: Path, workers: int = 0, table: ViewTable | None = None, views: int = 8, **options: Any
) -> None:
    source = TableSource(root, table or table_of(root), name="trial", views_per_sample=views)
    shard_views(source, out, workers=workers, **{"size": None, "samples_per_shard": 4, **options})


@pytest.mark.parametrize("by_time", [False, True])
def test_every_frame_is_the_one_its_row_names(by_time: bool, folder: Path, tmp_path: Path) -> None:
    build(folder, tmp_path / "out", table=table_of(folder, by_time))
    assert verify(tmp_path / "out").ok
    shards, seen = ShardSet.open(tmp_path / "out"), 0
    for split in ("train", "val"):
        found = shards.split(split)
        for i in range(len(found.keys)):
            for k in range(int(found.n_views[i])):
                assert number_of(found.read_view(i, k)) == found.params[i, k, 1]
                seen += 1
    assert seen == len(table_of(folder).of)
    assert shards.info.provenance["source"]["decoder"].keys() == {"libavcodec", "libswscale"}


def test_rows_without_a_frame_are_named_all_at_once(folder: Path) -> None:
    of, numbers = np.array([0, 1, 1, 0]), np.array([120, 49, 50, -1])
    assert VideoPictures.by_number(folder, list(FRAMES), of, numbers, where, mistakes := Mistakes()) is None
    assert mistakes.first == [
        "metadata.csv, row 1: a.mp4 has frames 0 to 119, not 120",
        "metadata.csv, row 3: b.mkv has frames 0 to 49, not 50",
        "metadata.csv, row 4: a.mp4 has frames 0 to 119, not -1",
    ]
    times = np.array([0.04, 0.05, 2.0, np.nan])
    assert VideoPictures.by_time(folder, list(FRAMES), of, times, where, mistakes := Mistakes()) is None
    assert mistakes.count == 3
    assert mistakes.first[:2] == [
        "metadata.csv, row 2: b.mkv has no frame within 0.0001 s of 0.050000 s, the nearest is frame 1 at 0.040000 s",
        "metadata.csv, row 3: b.mkv has no frame within 0.0001 s of 2.000000 s, the nearest is frame 49 at 1.960000 s",
    ]
    near = VideoPictures.by_time(folder, list(FRAMES), of[:2], times[:2], where, Mistakes(), tolerance_s=0.02)
    assert near is not None
    assert near.numbers.tolist() == [1, 1]


def test_all_damaged_videos_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:-100])
    (tmp_path / "no.mp4").write_bytes(b"no video, and no box of one")
    zeros, mistakes = np.zeros(2, int), Mistakes()
    assert VideoPictures.by_number(tmp_path, ["cut.mp4", "no.mp4"], np.arange(2), zeros, where, mistakes) is None
    with pytest.raises(FormatError, match=r"2 mistakes: .*cut.mp4: it is cut.*; .*no.mp4: not an MP4"):
        mistakes.raise_any("videos")


def test_a_damaged_frame_ends_the_build_or_is_left_out_by_name(folder: Path, tmp_path: Path) -> None:
    import av

    for name in FRAMES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    last = max(packets, key=lambda packet: packet.pts or 0)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    assert last.pos is not None
    data[last.pos : last.pos + last.size] = bytes(last.size)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(FormatError, match=r"bad so far.*a\.mp4, frame 11[0-9]: "):
        build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out/_meta/dataset.json").exists()
    build(tmp_path, tmp_path / "rest", views=60, max_bad=200)
    assert verify(tmp_path / "rest").ok
    bad = ShardSet.open(tmp_path / "rest").info.provenance["bad_views"]["names"]
    assert any("comes after a damaged one" in line for line in bad)
    assert all("a.mp4, frame 11" in line or "b.mkv" in line for line in bad)


def test_bytes_do_not_depend_on_workers(folder: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        build(folder, tmp_path / str(workers), workers)
    assert same_folders(tmp_path / "0", tmp_path / "2")


def test_an_interrupted_build_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder, tmp_path / "whole")
    close, closed = OpenShard.close, []

    def close_two(shard: OpenShard, notes: Any) -> None:
        close(shard, notes)
        closed.append(shard.name)
        if len(closed) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenShard, "close", close_two)
        with pytest.raises(KeyboardInterrupt):
            build(folder, tmp_path / "out", workers=2)
    build(folder, tmp_path / "out", workers=2)
    assert same_folders(tmp_path / "whole", tmp_path / "out")


def runs(folder: Path, name: str, views: int, together: DecodedTogether) -> list[int]:
    """First frame of each group that goes to a worker, of a whole file in chunks of so many frames."""
    table = table_of(folder)
    video = list(FRAMES).index(name)
    numbers = np.arange(FRAMES[name])
    table = replace(
        table,
        sequences=[name],
        of=np.zeros(len(numbers), np.int32),
        steps=numbers.astype(np.int32),
        params=numbers[:, None].astype(np.float32),
        fields=table.fields[1:],
        splits=["train"],
        labels=[None],
        pictures=replace(table.pictures, of=np.full(len(numbers), video), numbers=numbers),  # type: ignore[type-var]
    )
    source = TableSource(folder, table, name="trial", views_per_sample=views)
    records = source.records()
    groups = list(_grouped(source.read(records, range(len(records))), together))
    return [int(np.asarray(group[0].params)[0, 0]) for group in groups]


def test_one_worker_decodes_a_run_of_frames(folder: Path) -> None:
    assert runs(folder, "b.mkv", 5, DecodedTogether(enough=15, most=48)) == [0, 20, 40]  # keyframes every ten
    assert runs(folder, "b.mkv", 4, DecodedTogether(enough=15, most=48)) == [0, 20, 40]
    assert runs(folder, "b.mkv", 7, DecodedTogether(enough=14, most=21)) == [0, 21, 42]  # 1 or 2 after a keyframe
    assert runs(folder, "a.mp4", 8, DecodedTogether(enough=16, most=48)) == [0, 48, 96]  # one keyframe, at 0


def test_runs_are_long_and_bounded() -> None:
    small, large = (DecodedTogether.of(Frame(side, side), 10**6, 2) for side in (128, 1024))
    assert (small.enough, small.most) == (256, 1024)
    assert (large.enough, large.most) == (64, 64)
    assert DecodedTogether.of(Frame(128, 128), 1000, 2).enough == 125


def test_another_file_of_the_same_name_is_another_set(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder)
    before = table.pictures.identity()
    for name, count in FRAMES.items():
        write_video(tmp_path / name, count, g=50)
    pictures = table_of(tmp_path).pictures
    assert pictures.identity()["content_sha256"] != before["content_sha256"]
    rows = np.arange(10)
    assert pictures.stamp(rows) != table.pictures.stamp(rows)
    ours, others = (t.contents(rows) for t in (table.pictures, pictures))
    assert ours.digest() != others.digest()  # type: ignore[union-attr]
    moved = replace(table.pictures, root=tmp_path)  # type: ignore[type-var]
    assert moved.identity() == pictures.identity()


def test_pictures_that_a_player_shows_otherwise_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """HDV cameras store 16:9 in 1440 × 1080, and interlaced; phones film HDR."""
    kinds: dict[str, dict[str, Any]] = {
        "plain.mp4": {},
        "square.mp4": {"aspect": Fraction(1)},
        "wide.mp4": {"aspect": Fraction(4, 3)},
        "hdv.mkv": {"aspect": Fraction(4, 3), "x264_params": "tff=1"},
        "phone.mp4": {"colours": {"color_trc": 18}},
    }
    for name, options in kinds.items():
        write_video(tmp_path / name, 3, **options)
    VideoPictures.by_number(tmp_path, list(kinds), np.arange(5), np.zeros(5, int), where, Mistakes())
    assert [record.getMessage() for record in caplog.records] == [
        "2 videos have pixels that are not square, which stay as they are stored: wide.mp4, hdv.mkv",
        "1 videos have interlaced frames, which stay as they are stored: hdv.mkv",
        "1 videos have HDR colours, which stay as they are stored: phone.mp4",
    ]
