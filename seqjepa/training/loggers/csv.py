"""RUN/loggers/metrics.csv: a row an epoch, for spreadsheets and pandas. Nothing to install; pictures are left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, folder_of
from shards.machine.files import write_atomic

FILE = "metrics.csv"


class CSV:
    """See Logger. The file is replaced as a whole, so that its columns are those of all epochs."""

    rewinds = True

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str:
        self.path = folder_of(run) / FILE
        self.rows: list[dict[str, Any]] = []
        if resumed_at and self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= resumed_at]
        return str(self.path)

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.rows.append({"epoch": epoch, "step": step, **values})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_atomic(self.path, text.getvalue().encode())

    def picture(self, name: str, step: int, png: Path) -> None:
        pass

    def finish(self, status: Status) -> None:
        pass
