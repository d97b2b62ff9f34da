"""TensorBoard: event files in RUN/loggers/, which `tensorboard --logdir runs` finds.

Written with tensorboard's own writer, which needs neither torch nor TensorFlow. A run that goes on writes a file more,
whose first event takes back what was logged after the step that it goes on from.
"""

# pyright: reportAttributeAccessIssue=false
# (protocol buffers make their classes when they are imported)

from __future__ import annotations

import shlex
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, folder_of
from shards.extras import missing

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError as error:
    raise missing("tensorboard") from error


class TensorBoard:
    """See Logger. Scalars by their names in metrics.jsonl, pictures under images, settings as a table under text."""

    rewinds = True

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str:
        self.writer = EventFileWriter(str(folder_of(run)))
        first = resumed_at + 1 if resumed_at else 0
        self._add(first, session_log=SessionLog(status=SessionLog.START))
        if not resumed_at:
            self._add(0, summary=Summary(value=[_text("config", _table(config))]))
        self.writer.flush()
        return f"tensorboard --logdir {shlex.quote(str(run))}"

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        shown = {"epoch": epoch, **values}
        self._add(step, summary=Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in shown.items()]))
        self.writer.flush()

    def picture(self, name: str, step: int, png: Path) -> None:
        data = png.read_bytes()
        width, height = struct.unpack(">II", data[16:24])  # of the header chunk, which comes first
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._add(step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def finish(self, status: Status) -> None:
        self.writer.close()

    def _add(self, step: int, **what: Any) -> None:
        self.writer.add_event(Event(wall_time=time.time(), step=step, **what))


def _table(config: Mapping[str, Any]) -> str:
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {key} | `{value}` |" for key, value in config.items())])


def _text(tag: str, text: str) -> Summary.Value:
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=TensorShapeProto())
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=about, tensor=tensor)
