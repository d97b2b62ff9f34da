"""A logger: `--set train.loggers=['logbook']` writes RUN/logbook.txt, a line an epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logbook:
    """What each method is for stands at seqjepa.training.loggers.Logger. It works in a process of its own."""

    rewinds = False  # a run that goes on from an earlier step leaves what was written after it

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str:
        self.path = run / "logbook.txt"
        self._write(f"{config['method']} goes on from step {resumed_at}")
        return str(self.path)

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self._write(f"epoch {epoch}: loss {values['loss']:.4f}")

    def picture(self, name: str, step: int, png: Path) -> None:
        self._write(f"step {step}: a picture of {name}, {png.stat().st_size} bytes")

    def finish(self, status: str) -> None:
        self._write(status)

    def _write(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
