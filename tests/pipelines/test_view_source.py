"""A data set with parameters and actions of its own: one class is all that a build needs of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_3die import same_folders
from small_images import encoded, picture

from pipelines.build.views import shard_views
from pipelines.sources import ViewsContent, ViewSource, ViewsRecord
from pipelines.sources.content import file_stats, stamp_of
from shards.errors import FormatError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm, ParamField
from shards.verify import verify


class Drives(ViewSource):
    """<drive>/<k>.png beside <drive>/poses.csv, a line "x,y,yaw" for each picture."""

    name = "drives"
    params = (ParamField("x", "m"), ParamField("y", "m"), ParamField("yaw", "rad"))
    actions = ActionSpec((ActionTerm("difference", ("x", "y")), ActionTerm("angle_difference", ("yaw",))))
    classes = ()

    def __init__(self, path: Path):
        self.path, self.settled = path, {}
        self.drives = {
            folder.name: np.loadtxt(folder / "poses.csv", delimiter=",") for folder in sorted(path.iterdir())
        }
        self.identity: dict[str, Any] = {"name": path.name, "drives": len(self.drives)}
        self.sample = [(f"{name}/0.png", path / name / "0.png") for name in self.drives]

    def records(self) -> list[ViewsRecord]:
        return [ViewsRecord(name, -1, "train", name, tuple(range(len(rows)))) for name, rows in self.drives.items()]

    def read(self, records: Sequence[ViewsRecord], positions: Sequence[int]) -> Iterator[ViewsContent]:
        for record in (records[position] for position in positions):
            views = [self.path / record.name / f"{k}.png" for k in record.view_ids]
            yield ViewsContent(record, views, self.drives[record.name], view_file="{}.png", params_file="poses.csv")

    def stamp(self, records: Sequence[ViewsRecord]) -> str:
        return stamp_of(file_stats(sorted(self.path.rglob("*"))))

    def holds(self, records: Sequence[ViewsRecord], identity: dict[str, Any]) -> bool:
        return identity == self.identity


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    for number in range(3):
        folder = tmp_path / "drives" / f"d{number}"
        folder.mkdir(parents=True)
        for k in range(4):
            (folder / f"{k}.png").write_bytes(encoded(picture(10 * number + k, 24, 24)))
        np.savetxt(folder / "poses.csv", np.random.default_rng(number).normal(size=(4, 3)), delimiter=",")
    return tmp_path / "drives"


def test_a_source_declares_its_columns_and_actions(drives: Path, tmp_path: Path) -> None:
    options = {"size": 24, "encoding": "raw", "samples_per_shard": 2}
    info = shard_views(Drives(drives), tmp_path / "out", workers=0, **options)
    assert verify(tmp_path / "out").ok
    assert info.spec.actions == Drives.actions
    assert info.provenance["command"].startswith("seqjepa-data shard drives --source drives --size 24")
    found = ShardSet.open(tmp_path / "out").split("train")
    assert (found.keys, found.labels.tolist()) == (["d0", "d1", "d2"], [-1, -1, -1])
    for i, rows in enumerate(Drives(drives).drives.values()):
        assert np.array_equal(found.params[i], rows.astype(np.float32))
        for k in range(4):
            assert np.array_equal(found.read_view(i, k), picture(10 * i + k, 24, 24))
    shard_views(Drives(drives), tmp_path / "two", workers=2, **options)
    assert same_folders(tmp_path / "out", tmp_path / "two")


def test_what_is_wrong_with_it_is_named(drives: Path, tmp_path: Path) -> None:
    (drives / "d1/2.png").write_bytes(encoded(picture(0, 20, 30)))
    (drives / "d2/3.png").write_bytes(b"nothing")
    with pytest.raises(
        FormatError, match=r"2 bad so far.*d1/2\.png: 30×20 pixels, the others.*d2/3\.png: not a JPEG, PNG"
    ):
        shard_views(Drives(drives), tmp_path / "out", workers=0, samples_per_shard=4, max_bad=1)
