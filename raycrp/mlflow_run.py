"""Metrics to an MLflow tracking server, where one is named."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from raycrp.errors import ConfigError
from raycrp.run import RunFolder

EXPERIMENT = "raycrp"
_NOTE_FILE = "train/mlflow.json"

logger = logging.getLogger(__name__)


def check_mlflow() -> None:
    """Refuse a setting that asks for MLflow where it is not installed.

    Raises:
        ConfigError: Saying what to install.
    """
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "train.mlflow_uri needs MLflow, which is not installed here: "
            "pip install 'raycrp[mlflow]' on every node, or leave mlflow_uri unset"
        ) from error


class MlflowRun:
    """A run on a tracking server; a resumed training goes on in the same one.

    A server that fails does not end training: what it misses is in the run folder all the same.

    Args:
        run: The run folder, which keeps the number of the run on the server.
        uri: Tracking server, or a folder.
        settings: What to note beside the metrics, by dotted name.
    """

    def __init__(self, run: RunFolder, *, uri: str, settings: Mapping[str, Any]) -> None:
        check_mlflow()
        self._client: Any = None
        self._is_silent = False
        self._run_id: str | None = None
        self._call(self._open, run, uri, settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send metrics of a step.

        Args:
            step: Optimiser steps done.
            values: By name.
        """
        if self._run_id is not None:
            self._call(self._send, self._run_id, step, values)

    def close(self) -> None:
        """Say that training has ended; a run that is interrupted stays as running."""
        if self._run_id is not None:
            self._call(self._client.set_terminated, self._run_id)

    def _open(self, run: RunFolder, uri: str, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(uri)
        noted = run.read_json(_NOTE_FILE) if run.exists(_NOTE_FILE) else {}
        if noted.get("uri") == uri:
            self._run_id = str(noted["run_id"])
            self._client.update_run(self._run_id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        experiment_id = (
            self._client.create_experiment(EXPERIMENT)
            if experiment is None
            else experiment.experiment_id
        )
        made = self._client.create_run(
            experiment_id, run_name=run.name, tags={"run_folder": run.uri()}
        )
        self._run_id = made.info.run_id
        self._client.log_batch(
            self._run_id, params=[Param(name, str(value)) for name, value in settings.items()]
        )
        run.write_json(_NOTE_FILE, {"uri": uri, "run_id": self._run_id})

    def _send(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(run_id, metrics=metrics)

    def _call(self, function: Any, *arguments: Any) -> None:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            function(*arguments)
        except (MlflowException, RequestException, OSError) as error:
            if not self._is_silent:
                reason = str(error).strip().splitlines()[:1]
                logger.warning("MLflow cannot be written, training goes on: %s", *reason or [""])
            self._is_silent = True
        else:
            self._is_silent = False
