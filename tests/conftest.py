"""For all tests."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end; a full round of the collector would take half a second to see that."""
    gc.collect()
    gc.freeze()
