"""Ctrl-C and SIGTERM: finish the step, save, leave with a line that says how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from shards.errors import SeqJepaError


class Interrupted(SeqJepaError):  # noqa: N818 – not a mistake of anyone's
    """The run was asked to stop and has saved its state. `exit_code` is the shell's: 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `.received`. A SIGINT after that acts at once, as by
    somebody who does not want to wait; a SIGTERM does not, as schedulers and launchers pass on what they also send to
    every process of a job.

    Outside the main thread Python cannot install handlers; then nothing is caught.
    """

    def __init__(self) -> None:
        self.received: int = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self._restore(signal.SIGINT)

    def _restore(self, *numbers: int) -> None:
        """The handlers of before, for these signals or for all."""
        for number in numbers or tuple(self._previous):
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))  # type: ignore[arg-type]
