"""`views`: several views of one object, with the parameters of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from shards.errors import FormatError
from shards.json_fields import number, one_of, take
from shards.kinds.base import LABEL_LINE, LABEL_RECORD, Column, Columns, Kind, StoredSplit, classes_in_words
from shards.pixels import npy_bytes, npy_header, pixels_problem, raw_length
from shards.schema import (
    EXTENSION,
    MAX_PARAMS,
    MAX_SIDE,
    MAX_VIEWS,
    ActionSpec,
    DatasetInfo,
    Encoding,
    ParamField,
    ViewSpec,
)
from shards.tar import StoredTar, begins_with
from shards.vectors import features_from_json, vector_header, vector_length, vector_problem


@dataclass(frozen=True)
class ViewSample:
    """n ≤ N views of one object.

    key       letters, digits, _ and -; unique within its split
    views     n encoded views: baseline RGB JPEGs, for raw sets what `encode_raw` returns, for features what
              `encode_vectors` does
    view_ids  the n numbers that the source gives its views, ascending or not, gaps allowed
    params    float32 [n, P], in the units of ViewSpec.params
    label     rank of the class in DatasetInfo.classes, −1 for none
    meta      a few strings or integers; the same names and types in every sample of a set
    chunk     which part of its sequence it is, in a chunked set: 0 begins one, 1 … go on with the sample before
    """

    key: str
    views: Sequence[bytes]
    view_ids: Sequence[int]
    params: np.ndarray
    label: int
    meta: dict[str, str | int] = field(default_factory=dict)
    chunk: int = 0


def pad_cyclic(values: Sequence, count: int) -> list:
    """The first `count` of values repeated over and over: [a, b] to 5 is a b a b a."""
    return [values[slot % len(values)] for slot in range(count)]


@dataclass(frozen=True)
class ViewKind(Kind):
    """A sample with fewer than N views repeats its own cyclically, so that all samples have the same members in
    every reader; the JSON's `views` says how many are distinct.
    """

    spec: ViewSpec

    sample_type: ClassVar[type] = ViewSample
    reserved: ClassVar[frozenset[str]] = frozenset({"views", "view_ids"})

    @property
    def has_pixels(self) -> bool:
        return self.spec.features is None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ViewKind:
        fields = take(record, "params", list)
        if not all(isinstance(f, dict) for f in fields) or len(fields) > MAX_PARAMS:
            raise FormatError(f"params must be at most {MAX_PARAMS} objects of name and unit")
        params = tuple(ParamField(take(f, "name", str), take(f, "unit", str)) for f in fields)
        actions = ActionSpec.from_json(record["actions"]) if "actions" in record else None
        if actions and (problem := actions.problem(params)):
            raise FormatError(problem)
        views = number(record, "views", 1, MAX_VIEWS)
        sequence = number(record, "sequence", 0, views) if "sequence" in record else 0
        if sequence and views % sequence:
            raise FormatError(f"sequence is {sequence}, which does not divide the {views} views")
        if sequence and (record.get("ordered") or record.get("chunked")):
            raise FormatError("baked sequences (sequence > 0) are neither ordered nor chunked")
        encoding = one_of(record, "encoding", tuple(EXTENSION))
        if (encoding == "features") != ("features" in record):
            raise FormatError(f"encoding {encoding!r} and a record of features: one needs the other")
        return cls(
            ViewSpec(
                views=views,
                height=number(record, "height", 1, MAX_SIDE),
                width=number(record, "width", 1, MAX_SIDE),
                encoding=encoding,
                params=params,
                sequence=sequence,
                actions=actions,
                ordered=take({"ordered": False, **record}, "ordered", bool),
                chunked=take({"chunked": False, **record}, "chunked", bool),
                features=features_from_json(take(record, "features", dict)) if "features" in record else None,
            )
        )

    def problem(self, sample: ViewSample) -> str | None:
        spec, count, ids, params = self.spec, len(sample.views), list(sample.view_ids), np.asarray(sample.params)
        if not 1 <= count <= spec.views:
            return f"{count} views, allowed are 1 to {spec.views}"
        if spec.sequence and count % spec.sequence:
            return f"{count} views are not whole runs of {spec.sequence}"
        if len(ids) != count or len(set(ids)) != count or not all(0 <= v < 2**31 for v in ids):
            return f"{count} views need {count} different view numbers from 0 up, found {ids[:10]}"
        if params.shape != (count, len(spec.params)) or not np.isfinite(params).all():
            return f"params must be finite, shape [{count}, {len(spec.params)}], found {list(params.shape)}"
        if spec.ordered and ids != sorted(ids):
            return f"steps must ascend, found {ids[:10]}"
        if sample.chunk < 0 or (sample.chunk and not spec.chunked) or (spec.chunked and "chunk" in sample.meta):
            return f"chunk {sample.chunk} and meta {list(sample.meta)}: only chunked sets have chunks, and none as meta"
        for view_id, view in zip(ids, sample.views, strict=True):
            if problem := self._view_problem(view):
                return f"view {view_id}: {problem}"
        return None

    def _view_problem(self, view: bytes) -> str | None:
        spec = self.spec
        if spec.features:
            return vector_problem(view, spec.features)
        return pixels_problem(view, cast(Encoding, spec.encoding), spec.height, spec.width)

    def members(self, sample: ViewSample) -> list[bytes]:
        return [*pad_cyclic(sample.views, self.spec.views), npy_bytes(self._rows(sample))]

    def row(self, sample: ViewSample) -> dict[str, Any]:
        ids = [int(v) for v in sample.view_ids]
        padded = ids + [-1] * (self.spec.views - len(ids))
        params = {"params": self._rows(sample).ravel()} if self.spec.params else {}
        chunk = {"chunk": int(sample.chunk)} if self.spec.chunked else {}
        return {"n_views": len(ids), "view_ids": padded, **params, **chunk}

    def _rows(self, sample: ViewSample) -> np.ndarray:
        return np.asarray(sample.params, np.float32)[pad_cyclic(range(len(sample.views)), self.spec.views)]

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        chunk = {"chunk": int(row["chunk"])} if self.spec.chunked else {}
        return {"views": int(row["n_views"]), "view_ids": [int(v) for v in row["view_ids"] if v >= 0], **chunk}

    def columns(self) -> dict[str, Column]:
        slots = self.spec.views
        return {
            "n_views": Column("int32"),
            "view_ids": Column("int32", slots),
            **({"params": Column("float32", slots * len(self.spec.params))} if self.spec.params else {}),
            **({"chunk": Column("int32")} if self.spec.chunked else {}),
        }

    def params(self, columns: Columns) -> np.ndarray:
        """float32 [S, N, P] of an index's columns; a set of views without parameters (P = 0) has no such column."""
        shape = (len(columns["n_views"]), self.spec.views, len(self.spec.params))
        return columns["params"].reshape(shape) if self.spec.params else np.empty(shape, np.float32)

    def faults(self, columns: Columns, lengths: np.ndarray) -> dict[str, np.ndarray]:
        spec, counts, ids = self.spec, columns["n_views"], columns["view_ids"]
        distinct = np.arange(spec.views) < counts[:, None]
        faults = {
            "an impossible number of views": (counts < 1) | (counts > spec.views) | (counts % (spec.sequence or 1) > 0),
            "view numbers that do not fit its views": ((ids >= 0) != distinct).any(1) | (ids < -1).any(1),
            "parameters that are not finite": ~np.isfinite(self.params(columns)).all((1, 2)),
        }
        if spec.encoding != "jpeg":
            size = vector_length(spec.features) if spec.features else raw_length(spec.height, spec.width)
            faults["a view of an impossible length"] = (lengths[:, : spec.views] != size).any(1)
        if spec.chunked:
            chunk, before = columns["chunk"], np.concatenate([[-1], columns["chunk"][:-1]])
            follows = (chunk == before + 1) & (before >= 0)
            faults["a chunk that does not follow the one before it"] = (chunk != 0) & ~follows
        if spec.ordered:
            faults["steps that do not ascend"] = self._disordered(columns)
        return faults

    def _disordered(self, columns: Columns) -> np.ndarray:
        """bool [S]: samples whose steps do not ascend, or do not follow those of the chunk before."""
        ids, counts = columns["view_ids"].astype(np.int64), columns["n_views"]
        bad = np.any((np.diff(ids, axis=1) <= 0) & (np.arange(1, self.spec.views) < counts[:, None]), axis=1)
        if self.spec.chunked and len(ids) > 1:
            ends = ids[np.arange(len(ids)), np.clip(counts - 1, 0, self.spec.views - 1)]
            bad[1:] |= (columns["chunk"][1:] > 0) & (ids[1:, 0] <= ends[:-1])
        return bad

    def differs(self, tar: StoredTar, split: StoredSplit, samples: np.ndarray) -> np.ndarray:
        """The parameters' .npy is not, byte for byte, that of the index's rows; or a vector has another header."""
        member = self.spec.views
        rows = np.ascontiguousarray(self.params(split.columns)[samples].reshape(len(samples), -1)).view(np.uint8)
        start = np.frombuffer(npy_header((self.spec.views, len(self.spec.params)), "<f4"), np.uint8)
        expected = np.concatenate([np.tile(start, (len(rows), 1)), rows], 1)
        same = begins_with(tar, split.offsets[samples, member], expected)
        if self.spec.features:
            header = np.frombuffer(vector_header(self.spec.features), np.uint8)
            for slot in range(self.spec.views):
                same &= begins_with(tar, split.offsets[samples, slot], np.tile(header, (len(rows), 1)))
        return ~same | (split.lengths[samples, member] != expected.shape[1])

    def member_records(self) -> list[dict[str, Any]]:
        spec = self.spec
        *views, params, label, record = (f"KEY{suffix}" for suffix in spec.suffixes())
        pixels = {"dtype": "uint8", "shape": [spec.height, spec.width, 3], "axes": ["row", "col", "rgb"]}
        if spec.features:
            pixels = {"dtype": spec.features.dtype, "shape": [spec.features.size], "axes": ["feature"]}
        rows = {"dtype": "float32", "shape": [spec.views, len(spec.params)], "axes": ["view", "param"]}
        meaning = "views: how many are distinct; view_ids: their source numbers"
        return [
            {"name": f"{views[0]} … {views[-1]}" if spec.views > 1 else views[0], **pixels},
            {"name": params, **rows, "units": [field.unit for field in spec.params]},
            {"name": label, **LABEL_RECORD},
            {"name": record, "dtype": "JSON", "meaning": meaning},
        ]

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "view_slots": spec.views,
            **({"sequence": spec.sequence} if spec.sequence else {}),
            **({"ordered": True} if spec.ordered else {}),
            **({"chunked": True} if spec.chunked else {}),
            "height": spec.height,
            "width": spec.width,
            "encoding": spec.encoding,
            **({"features": asdict(spec.features)} if spec.features else {}),
            "params": [{"name": f.name, "unit": f.unit} for f in spec.params],
            **({} if spec.actions is None else {"actions": spec.actions.to_json()}),
        }

    def describe_split(self, split: StoredSplit) -> dict[str, Any]:
        counts = split.columns["n_views"]
        return {
            "views": int(counts.sum()),
            "views_per_sample": {"min": int(counts.min()), "max": int(counts.max())},
            **self._describe_sequences(split.columns),
            "bytes_per_view": round(float(split.lengths[:, : self.spec.views].mean()), 1),
        }

    def _describe_sequences(self, columns: Columns) -> dict[str, Any]:
        """How many sequences there are, and how long they are, where one may take several samples."""
        if not self.spec.chunked:
            return {}
        lengths = np.add.reduceat(columns["n_views"], np.flatnonzero(columns["chunk"] == 0))
        return {"sequences": len(lengths), "views_per_sequence": {"min": int(lengths.min()), "max": int(lengths.max())}}

    def card_summary(self, info: DatasetInfo) -> str:
        spec = self.spec
        pixels = "baseline JPEG" if spec.encoding == "jpeg" else "raw uint8 (.npy)"
        views = f"up to {spec.views} views" if spec.views > 1 else "one view"
        runs = f" in runs of {spec.sequence}, each in its order" if spec.sequence else ""
        runs = " in the order of their steps" if spec.ordered else runs
        runs += ", a sequence taking as many samples in a row as it needs" if spec.chunked else ""
        size = f"{spec.height}×{spec.width} RGB pixels as {pixels}"
        if found := spec.features:
            pixels = f"{spec.height}×{spec.width} RGB pixels"
            size = f"each {found.size} features in {found.dtype} that {found.backbone} made of {pixels}"
        return f"{info.samples:,} samples of {views}{runs}, {size}; {classes_in_words(info)}."

    def card_members(self) -> list[str]:
        spec, (*views, params, _, record) = self.spec, self.spec.suffixes()
        span = f"`KEY{views[0]}` … `KEY{views[-1]}`" if spec.views > 1 else f"`KEY{views[0]}`"
        pixels = f"uint8 [{spec.height}, {spec.width}, 3], (row, col, RGB)"
        return [
            f"* {span}: the views, " + (f"{spec.features.dtype} [{spec.features.size}]" if spec.features else pixels),
            f"* `KEY{params}`: float32 [{spec.views}, {len(spec.params)}], one row a view, columns as below",
            LABEL_LINE,
            f"* `KEY{record}`: `views`, how many views are distinct (the rest repeat them in turn, so that every "
            "sample has the same members), `view_ids`, their numbers in the source, and what else is known of it"
            + ("; `chunk`: 0 where a sequence begins, 1 … where it goes on" if spec.chunked else ""),
            *(["", "| column | parameter | unit |", "|---|---|---|"] if spec.params else []),
            *(f"| {column} | {f.name} | {f.unit} |" for column, f in enumerate(spec.params)),
        ]
