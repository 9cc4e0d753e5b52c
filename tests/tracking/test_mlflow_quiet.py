"""What MLflow writes to stderr: nothing about making a store, its warnings and errors as ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging
from pathlib import Path
from poolbench_tracking.mlflow_sink import MlflowSink

MlflowSink(Path("."))
for name in ("mlflow.tracking", "mlflow.store.db.utils", "alembic.runtime.migration"):
    logging.getLogger(name).info("an info of %s", name)
    logging.getLogger(name).error("an error of %s", name)
logging.getLogger("mlflow.tracking").warning("a warning of MLflow")
"""


def test_a_fresh_store_is_made_in_silence_and_errors_are_heard(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_LOGGING_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "mlflow.db").exists()
    assert done.stdout == ""
    said = [line.split(": ", 1)[1] for line in done.stderr.splitlines() if line]
    assert said == [
        "an error of mlflow.tracking",
        "an error of mlflow.store.db.utils",
        "an error of alembic.runtime.migration",
        "a warning of MLflow",
    ]
