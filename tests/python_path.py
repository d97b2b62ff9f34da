"""Where processes that a test starts look for modules."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_path(*folders: Path | str) -> str:
    """PYTHONPATH with these folders first (default: the project's), then what it holds for this process."""
    return os.pathsep.join([*map(str, folders or (ROOT,)), *filter(None, [os.environ.get("PYTHONPATH")])])
