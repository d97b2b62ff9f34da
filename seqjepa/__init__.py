"""seq-JEPA: what trains and evaluates. `import seqjepa` is cheap: what it offers is imported when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqjepa.data.webdataset_pipeline import webdataset

__all__ = ["webdataset"]


def __getattr__(name: str) -> Any:
    if name == "webdataset":
        from seqjepa.data.webdataset_pipeline import webdataset

        return webdataset
    raise AttributeError(f"module 'seqjepa' has no attribute {name!r}; it offers: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
