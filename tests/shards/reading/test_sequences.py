"""Ordered and chunked sets: how samples join to sequences, what is refused, what old readers are told."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from shards.errors import FormatError
from shards.pixels import encode_raw
from shards.reader import ShardSet
from shards.reading.sequences import Sequences
from shards.sample import ViewSample
from shards.schema import ActionSpec, ActionTerm, ParamField, ViewSpec
from shards.writer import SetBuilder

EPISODES = ViewSpec(
    4, 8, 8, "raw", (ParamField("u", "1"),), ordered=True, chunked=True,
    actions=ActionSpec((ActionTerm("command", ("u",)),)),
)  # fmt: skip
LENGTHS = (10, 3, 4, 5)


def sample(sequence: int, chunk: int, steps: list[int]) -> ViewSample:
    pixels = [np.full((8, 8, 3), 16 * sequence + step, np.uint8) for step in steps]
    params = np.array([[100 * sequence + step] for step in steps], np.float32)
    return ViewSample(f"s{sequence}-{chunk}", list(map(encode_raw, pixels)), steps, params, -1, {}, chunk)


def chunks() -> list[ViewSample]:
    return [
        sample(number, chunk, list(range(start, min(start + 4, length))))
        for number, length in enumerate(LENGTHS)
        for chunk, start in enumerate(range(0, length, 4))
    ]


def write(folder, samples, spec=EPISODES, per_shard=3):
    with SetBuilder(folder, name="walks", spec=spec, classes=(), fingerprint={}) as builder:
        for number, start in enumerate(range(0, len(samples), per_shard)):
            with builder.open_shard("train", number) as shard:
                for one in samples[start : start + per_shard]:
                    shard.add(one)
        builder.finish({})
    return ShardSet.open(folder)


def test_chunks_join_across_shards(tmp_path):
    opened = write(tmp_path / "set", chunks())
    index = opened.split("train")
    sequences = index.sequences
    assert opened.info.format_version == 2
    assert index.ordered
    assert sequences.joined
    assert index.chunk.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert sequences.ids.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert sequences.starts.tolist() == [0, 0, 0, 10, 13, 17, 17]
    assert sequences.counts.tolist() == [10, 10, 10, 3, 4, 5, 5]
    assert sequences.steps.tolist() == [*range(10), *range(3), *range(4), *range(5)]
    rows, slots = sequences.locate(np.arange(22))
    expected = [100 * number + step for number, length in enumerate(LENGTHS) for step in range(length)]
    assert index.params[rows, slots, 0].tolist() == expected
    seen = [int(index.read_view(row, slot)[0, 0, 0]) for row, slot in zip(rows, slots, strict=True)]
    assert seen == [16 * number + step for number, length in enumerate(LENGTHS) for step in range(length)]


def test_windows_lie_in_one_sequence(tmp_path):
    sequences = write(tmp_path / "set", chunks()).split("train").sequences
    assert sequences.windows(5).tolist() == [0, 1, 2, 3, 4, 5, 17]
    assert sequences.windows(3).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 13, 14, 17, 18, 19]
    assert sequences.windows(1).tolist() == list(range(22))
    assert sequences.windows(23).tolist() == []


def test_no_window_over_a_gap():
    ids = np.array([[0, 1, 2, 4], [5, 6, -1, -1]], np.int32)
    sequences = Sequences(np.array([4, 2]), np.array([0, 1]), ids)
    assert sequences.windows(3).tolist() == [0, 3]  # steps 0 1 2 and 4 5 6


def test_chunk_stands_in_the_json(tmp_path):
    write(tmp_path / "set", chunks())
    with tarfile.open(tmp_path / "set" / "train-000000.tar") as tar:
        record = json.load(tar.extractfile("s0-1.json"))
    assert record == {"views": 4, "view_ids": [4, 5, 6, 7], "chunk": 1}


def test_an_ordered_set_without_chunks_is_of_version_1(tmp_path):
    spec = replace(EPISODES, chunked=False)
    opened = write(tmp_path / "set", [sample(0, 0, [0, 1, 2, 3]), sample(1, 0, [2, 3, 7])], spec)
    assert opened.info.format_version == 1
    assert opened.info.spec == spec
    assert not opened.split("train").sequences.joined


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        ([sample(0, 1, [0, 1])], "a chunk that does not follow"),
        ([sample(0, 0, [0, 1, 2, 3]), sample(0, 2, [4, 5])], "a chunk that does not follow"),
        ([sample(0, 0, [0, 1, 2, 3]), sample(0, 1, [3, 4])], "steps that do not ascend"),
    ],
)
def test_what_no_index_may_hold(tmp_path, samples, found):
    with pytest.raises(FormatError, match=found):
        write(tmp_path / "set", samples).split("train")


def test_what_no_sample_may_be(tmp_path):
    with pytest.raises(FormatError, match="steps must ascend"):
        write(tmp_path / "a", [sample(0, 0, [1, 0])])
    with pytest.raises(FormatError, match="only chunked sets have chunks"):
        write(tmp_path / "b", [sample(0, 1, [0, 1])], replace(EPISODES, chunked=False))


def test_a_preview_has_a_row_for_each_sequence(tmp_path):
    from shards.preview.contact_sheet import draw_views

    opened = write(tmp_path / "set", chunks())
    index = opened.split("train")
    firsts = np.flatnonzero(index.chunk == 0)
    sheet = draw_views(opened.info, EPISODES, index, firsts, views=6)
    one = draw_views(opened.info, EPISODES, index, firsts[:1], views=2)
    assert sheet.image.width > one.image.width + 3 * 128  # six views of the first, which holds four a sample
    assert sheet.image.height > 3 * (one.image.height - 120)
