"""MLflow: experiment "seqjepa", or MLFLOW_EXPERIMENT_NAME, where MLFLOW_TRACKING_URI says.

Without that variable: files in RUN/loggers/mlruns, which mlflow-skinny takes too, that has no database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, folder_of, kept
from shards.extras import missing

try:
    # Not statements: types are checked where it is not installed too.
    entities: Any = import_module("mlflow.entities")
    tracking: Any = import_module("mlflow.tracking")
except ImportError as error:
    raise missing("mlflow") from error

TAG = "seqjepa.id"
ENDED: Mapping[Status, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST_VALUE = 500  # letters of a setting that stores of all versions take


class MLflow:
    """See Logger. A run that goes on is found by the tag "seqjepa.id"."""

    rewinds = False

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder_of(run) / "mlruns").as_uri()
        self.client = tracking.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "seqjepa")
        there = self.client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else self.client.create_experiment(name)
        mine = kept(run, "mlflow")["id"]
        if found := self.client.search_runs([experiment], f"tags.`{TAG}` = '{mine}'"):
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            self.id = self.client.create_run(experiment, run_name=run.name, tags={TAG: mine}).info.run_id
            params = [entities.Param(key, str(value)[:LONGEST_VALUE]) for key, value in config.items()]
            for start in range(0, len(params), 100):  # as many as it takes at once
                self.client.log_batch(self.id, params=params[start : start + 100])
        return f"mlflow ui --backend-store-uri {uri}"

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        shown = {"epoch": epoch, **values}
        self.client.log_batch(self.id, [entities.Metric(key, float(value), now, step) for key, value in shown.items()])

    def picture(self, name: str, step: int, png: Path) -> None:
        self.client.log_artifact(self.id, str(png), "pictures")

    def finish(self, status: Status) -> None:
        self.client.set_terminated(self.id, ENDED[status])
