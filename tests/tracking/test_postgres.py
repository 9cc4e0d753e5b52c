"""deploy/serve.sh: MLflow before PostgreSQL, many writers, a server that stops, studies in the same database."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from poolbench.core import Measurement
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.tune.record import records

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("psycopg", reason="the extra postgres is not installed")

SCRIPT = Path(__file__).parents[2] / "deploy" / "serve.sh"
BINARIES = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]
pytestmark = [
    pytest.mark.skipif(not BINARIES, reason="PostgreSQL is not installed (Debian: postgresql)"),
    pytest.mark.skipif(not SCRIPT.exists(), reason="no checkout, which has deploy/"),
]
WRITERS = 8
PATIENCE = 240.0


class Server:
    """deploy/serve.sh on a free pair of ports; what it stores outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_pair()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "log"
        log.write_text("")
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPT), str(self.folder / "server"), str(self.port)],
                stdout=file, stderr=file, env={**os.environ, "PYTHON": sys.executable, "WORKERS": "2"},
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while "studies:" not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the servers do not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def is_listening(self) -> bool:
        with socket.socket() as one:
            return any(one.connect_ex(("127.0.0.1", port)) == 0 for port in (self.port, self.port + 1))

    @property
    def password(self) -> str:
        return (self.folder / "server" / "password").read_text().strip()


def free_pair() -> int:
    """Return a port that is free with the one after it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not below pytest's folder, which the account postgres may not enter.
    folder = Path(tempfile.mkdtemp(prefix="poolbench-postgres-"))
    folder.chmod(0o755)
    found = Server(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path, number: int, seeds: int = 2) -> Ledger:
    """Write made-up finished cells of two groups that no other number has."""
    ledger = Ledger(folder).create()
    selection = Selection(("global_pooling",), "smoke", heads=("avg", "max"), seeds=tuple(range(seeds)))
    for cell in plan(replace(selection, where={"variant": "corrected"})):
        cell = replace(cell, train=replace(cell.train, learning_rate=1e-3 * (number + 1)))
        record = ledger.record(cell.id)
        record.begin(cell, {"environment": {"device": "cpu"}})
        record.append("epoch", epoch=1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5)
        metrics = {metric.name: 0.5 + cell.seed / 10 for metric in benchmarks.get("global_pooling")().metrics}
        table = pd.DataFrame({"label": [0, 1], "decision": [0, 1], "correct": [1, 1]})
        record.finish(Measurement(metrics, {"answers": table}), {"chance": 0.1, "commonest": 0.5}, b"weights")
    return ledger


def start_sync(ledger: Ledger, server: Server) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "poolbench.cli", "sync", "--out", str(ledger.folder)]
    return subprocess.Popen(
        [*command, "--tracking-uri", server.uri], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def said(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    found = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert {process.returncode for process in processes} == {0}, found
    return found


def runs(server: Server) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("global_pooling")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def by_kind(found: Sequence[Any], kind: str) -> list[Any]:
    return [run for run in found if run.data.tags["poolbench.kind"] == kind]


def test_eight_writers_at_once(server: Server, tmp_path: Path) -> None:
    ledgers = [fill(tmp_path / str(number), number) for number in range(WRITERS)]
    # The last folder has a second writer.
    said([start_sync(ledger, server) for ledger in [*ledgers, ledgers[-1]]])
    found = runs(server)
    seeds, groups = by_kind(found, "seed"), by_kind(found, "group")
    cells = [result.cell for ledger in ledgers for result in ledger.results()]
    assert len(cells) == 4 * WRITERS
    assert Counter(run.data.tags["poolbench.cell"] for run in seeds) == Counter(cell.id for cell in cells)
    assert Counter(run.data.tags["poolbench.group"] for run in groups) == Counter({cell.group for cell in cells})
    assert {run.info.status for run in found} == {"FINISHED"}
    own = {run.info.run_id: run.data.tags["poolbench.group"] for run in groups}
    assert all(own[run.data.tags["mlflow.parentRunId"]] == run.data.tags["poolbench.group"] for run in seeds)
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    for run in groups:
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        table = pd.read_csv(client.download_artifacts(run.info.run_id, "tables/answers.csv", str(tmp_path)))
        assert len(table) == 4
    again = said([start_sync(ledger, server) for ledger in ledgers[:3]])
    assert all("0 runs of seeds are new" in text for text in again)
    assert len(runs(server)) == len(found)


def test_a_server_that_stops_during_a_sync_is_completed_later(server: Server, tmp_path: Path) -> None:
    before = len(by_kind(runs(server), "seed"))
    ledger = fill(tmp_path / "interrupted", WRITERS + 1, seeds=20)
    sync = start_sync(ledger, server)
    deadline = time.monotonic() + PATIENCE
    while len(by_kind(runs(server), "seed")) < before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.stop()
    assert not server.is_listening()
    text, _ = sync.communicate(timeout=PATIENCE)
    assert sync.returncode == 1, text
    assert "nothing is lost" in text
    assert "Traceback" not in text
    server.start()
    said([start_sync(ledger, server)])
    own = {result.cell.id for result in ledger.results()}
    counts = Counter(run.data.tags["poolbench.cell"] for run in by_kind(runs(server), "seed"))
    assert {cell: counts[cell] for cell in own} == dict.fromkeys(own, 1)


def test_two_tuners_without_a_common_folder_share_a_study(server: Server, tmp_path: Path) -> None:
    url = f"postgresql+psycopg://poolbench@127.0.0.1:{server.port + 1}/optuna"
    selection = ("global_pooling", "--preset", "smoke", "--head", "gem", "--where", "variant=corrected")
    more = ("--trials", "5", "--trial-seeds", "2", "--no-mlflow", "--storage", url, "--out")
    environment = {**os.environ, "PGPASSWORD": server.password}
    tuners = [
        subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", "tune", *selection, *more, str(tmp_path / name)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    said(tuners)
    (one,), (other,) = (records(tmp_path / name) for name in ("one", "two"))
    assert one.trials == other.trials
    assert one.best == other.best
    assert len(one.trials) == 5
    parameters = [tuple(trial.parameters.items()) for trial in one.trials]
    assert len(set(parameters)) == 5
    # Each ran some of the trials: their cells lie in its own ledger, and no trial was run by both.
    trained = [
        {result.cell.train.learning_rate for result in Ledger(tmp_path / name / "tuning" / one.id).results()
         if result.cell.seed in one.design.trial_seeds}
        for name in ("one", "two")
    ]  # fmt: skip
    assert trained[0] | trained[1] == {trial.parameters["learning_rate"] for trial in one.trials}
    assert not trained[0] & trained[1]


def test_a_wrong_call_is_one_line(tmp_path: Path) -> None:
    for arguments, line in (
        ((), "usage:"),
        ((str(tmp_path), "http"), "PORT is a number"),
        ((str(tmp_path), "80"), "1024"),
    ):
        done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert line in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_another_database_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "poolbench.cli", "tune", "global_pooling", "--preset", "smoke", "--trials", "1",
         "--storage", "postgresql+psycopg://ann:secret@127.0.0.1:9/optuna", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_compose_file_serves_this_machine_alone_with_pinned_versions() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((SCRIPT.parent / "compose.yaml").read_text())["services"]
    assert set(services) == {"database", "mlflow"}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]
    pins = dict(
        line.split("==")
        for line in (SCRIPT.parents[1] / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert f"mlflow=={pins['mlflow']} 'psycopg[binary]=={pins['psycopg']}'" in services["mlflow"]["command"]
    # The password comes from the environment, and nothing starts without one.
    assert services["database"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    mounted = [volume.split(":")[0] for volume in services["database"]["volumes"] if volume.startswith("./")]
    assert all((SCRIPT.parent / name).exists() for name in mounted)


def test_the_servers_end_with_the_script(server: Server) -> None:
    assert server.process is not None
    assert server.is_listening()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0
    assert not server.is_listening()
    server.process = None
