"""A sample of any kind, and the tar members that it becomes."""

from __future__ import annotations

import json
import re

from shards.errors import FormatError
from shards.kinds import kind_of
from shards.kinds.base import Kind
from shards.kinds.images import ImageSample
from shards.kinds.maps import MapSample
from shards.kinds.views import ViewSample
from shards.pixels import encode_raw
from shards.schema import Spec

__all__ = ["ImageSample", "MapSample", "Sample", "ViewSample", "check_sample", "encode_raw", "members"]

Sample = ViewSample | ImageSample | MapSample

KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
META_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


def members(sample: Sample, spec: Spec) -> list[bytes]:
    """The contents of a sample's members, in the order of spec.suffixes(). FormatError if it breaks `spec`."""
    check_sample(sample, spec)
    kind = kind_of(spec)
    record = {**kind.record(kind.row(sample)), **sample.meta}
    return [*kind.members(sample), label_member(sample.label), json.dumps(record, separators=(",", ":")).encode()]


def label_member(label: int) -> bytes:
    return b"%d" % label


def check_sample(sample: Sample, spec: Spec) -> None:
    """FormatError, naming the sample, unless it is what `spec` says."""
    kind = kind_of(spec)
    problem = _identity_problem(sample, kind) or kind.problem(sample)
    if problem:
        raise FormatError(f"sample {sample.key!r}: {problem}")


def _identity_problem(sample: Sample, kind: Kind) -> str | None:
    if not isinstance(sample, kind.sample_type):
        return f"a {type(sample).__name__} in a set of {kind.spec.kind}"
    if not KEY.fullmatch(sample.key):
        return "a key is 1 to 80 of A-Z a-z 0-9 _ -"
    for name, value in sample.meta.items():
        if not META_NAME.fullmatch(name) or name in kind.reserved:
            taken = f" (and not {sorted(kind.reserved)})" if kind.reserved else ""
            return f"meta name {name!r} is not lower-case letters, digits and _{taken}"
        if type(value) not in (str, int):
            return f"meta {name!r} is a {type(value).__name__}, allowed are str and int"
    return None
