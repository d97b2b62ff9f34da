"""A large manifest is listed in memory that grows with its columns alone, not with a Python object for each row."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import encoded, picture

FRAMES, PER_SEQUENCE = 100_000, 10
MOST_BYTES_A_ROW = 1500  # 640 were measured, of which a tar's own listing takes most
MEASURE = """
import resource, sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from pipelines.sources.manifest import ManifestOptions, read_manifest
from pipelines.sources.table import TableSource
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
source = Path(sys.argv[1])
table = read_manifest(source, ManifestOptions()).checked()
records = TableSource(source, table, name="manifest").records()
print(len(table.of), len(table.sequences), len(records), peak() - before)
"""


@pytest.mark.slow
def test_memory_of_a_large_manifest(tmp_path: Path) -> None:
    data, frame = encoded(picture(0, 8, 8), "jpg"), np.arange(FRAMES)
    names = [f"{k // PER_SEQUENCE:06d}/{k % PER_SEQUENCE}.jpg" for k in range(FRAMES)]
    with (tmp_path / "images.tar").open("wb") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512))
        file.write(b"\0" * 1024)
    columns = {"file_name": names, "step": frame % PER_SEQUENCE, "x": np.random.default_rng(0).normal(size=FRAMES)}
    pq.write_table(pa.table({**columns, "sequence": [name[:6] for name in names]}), tmp_path / "metadata.parquet")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "images.tar")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    rows, sequences, records, grown = map(int, found.stdout.split())
    assert (rows, sequences, records) == (FRAMES, FRAMES // PER_SEQUENCE, FRAMES // PER_SEQUENCE)
    assert grown < MOST_BYTES_A_ROW * FRAMES, grown / FRAMES
