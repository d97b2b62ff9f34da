"""The kinds of shard sets, one module each; base.py says what a kind is. All else asks `kind_of(spec)`."""

from __future__ import annotations

from shards.kinds.base import Kind
from shards.kinds.images import ImageKind
from shards.kinds.maps import MapKind
from shards.kinds.views import ViewKind
from shards.schema import KindName, Spec

KINDS: dict[KindName, type[Kind]] = {"views": ViewKind, "saliency": ImageKind, "image": ImageKind, "maps": MapKind}


def kind_of(spec: Spec) -> Kind:
    """The kind that knows how samples of `spec` are stored."""
    return KINDS[spec.kind](spec)
