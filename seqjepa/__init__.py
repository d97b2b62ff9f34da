"""seq-JEPA: what trains and evaluates. `import seqjepa` is cheap: what it offers is imported when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqjepa.data.webdataset_pipeline import webdataset
    from seqjepa.model import load
    from seqjepa.sequences import open_sequences

__all__ = ["load", "open_sequences", "webdataset"]

_FOUND_IN = {"load": "model", "open_sequences": "sequences", "webdataset": "data.webdataset_pipeline"}


def __getattr__(name: str) -> Any:
    if name in _FOUND_IN:
        return getattr(import_module(f"seqjepa.{_FOUND_IN[name]}"), name)
    raise AttributeError(f"module 'seqjepa' has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
