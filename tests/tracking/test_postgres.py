"""deploy/serve.sh: MLflow before PostgreSQL, many writers at once, a power cut, studies in the same database."""

from __future__ import annotations

import os
import re
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
import psutil
import pytest

from poolbench.core import Measurement
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.tune.record import records

mlflow = pytest.importorskip("mlflow")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPT = DEPLOY / "serve.sh"
POSTGRES = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCRIPT.exists(), reason="deploy/ is only in a checkout"),
]
WRITERS, SHARED, PATIENCE = 8, 3, 300
TASK = "global_pooling"

SYNC_AT_ONCE = """
import multiprocessing, sys
import matplotlib.figure, mlflow, poolbench_tracking.figures, poolbench_tracking.mlflow_sink
from poolbench.cli import main

def sync(folder):
    barrier.wait()
    main(["sync", "--out", folder, "--tracking-uri", sys.argv[1]])

context = multiprocessing.get_context("fork")
barrier = context.Barrier(len(sys.argv) - 2)
writers = [context.Process(target=sync, args=(folder,)) for folder in sys.argv[2:]]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
sys.exit(any(writer.exitcode for writer in writers))
"""

TRIALS = """
import sys
import optuna
study = optuna.load_study(study_name="shared", storage=sys.argv[1])
def objective(trial):
    print(trial.number)
    return trial.suggest_float("x", 0, 1)
study.optimize(objective, n_trials=20)
"""


class Server:
    """deploy/serve.sh on two free ports; what it stores outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_pair()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = f"postgresql+psycopg://poolbench@127.0.0.1:{self.port + 1}/optuna"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "log"
        environment = {**os.environ, "PYTHON": sys.executable, "WORKERS": "2"}
        # A process in the background, such as these tests may be, hands an ignored SIGINT down.
        command = ["env", "--default-signal=INT", "bash", str(SCRIPT), str(self.folder / "server"), str(self.port)]
        with open(log, "wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        deadline = time.monotonic() + PATIENCE
        while "studies:" not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the servers do not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(by)
        code = self.process.wait(timeout=PATIENCE)
        self.process = None
        return code

    def processes(self) -> list[psutil.Process]:
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def is_listening(self) -> bool:
        with socket.socket() as one, socket.socket() as other:
            return 0 in (one.connect_ex(("127.0.0.1", self.port)), other.connect_ex(("127.0.0.1", self.port + 1)))

    @property
    def password(self) -> str:
        return (self.folder / "server" / "password").read_text().strip()


def free_pair() -> int:
    """Return a port that is free, as is the next one."""
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
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra postgres)")
    # pytest's own folder is closed to the account of PostgreSQL.
    folder = Path(tempfile.mkdtemp(prefix="poolbench-postgres-"))
    folder.chmod(0o755)
    found = Server(folder)
    try:
        found.start()
        yield found
    finally:
        if found.process:
            found.stop()
        shutil.rmtree(folder)


def fill(folder: Path, number: int, seeds: int = 2) -> Ledger:
    """Write made-up finished cells of two groups that no other number has, on one data set."""
    ledger = Ledger(folder).create()
    chosen = Selection((TASK,), "smoke", heads=("avg", "max"), seeds=tuple(range(seeds)))
    data = {"name": "made-up", "digest": "0123456789abcdef", "source": "made here"}
    for cell in plan(replace(chosen, where={"variant": "corrected"})):
        cell = replace(cell, train=replace(cell.train, learning_rate=1e-3 * (number + 1)))
        record = ledger.record(cell.id)
        record.begin(cell, {"environment": {"device": "cpu"}})
        record.append("epoch", epoch=1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5)
        metrics = {metric.name: 0.5 + cell.seed / 100 for metric in benchmarks.get(TASK)().metrics}
        table = pd.DataFrame({"label": [0, 1], "decision": [0, 1], "correct": [1, 1]})
        record.finish(Measurement(metrics, {"answers": table}), {"chance": 0.1, "commonest": 0.5, "data": data}, b"")
    return ledger


def sync_at_once(ledgers: Sequence[Ledger], server: Server) -> str:
    """Sync ledgers by a process each, all at the same moment; return what they said."""
    command = [sys.executable, "-c", SYNC_AT_ONCE, server.uri, *(str(ledger.folder) for ledger in ledgers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("MLflow is up to date") == len(ledgers)
    return done.stderr


def new_runs(said: str) -> int:
    return sum(map(int, re.findall(r"(\d+) runs of seeds are new", said)))


def runs(server: Server, kind: str) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    ids = [found.experiment_id for found in client.search_experiments(filter_string=f"name = '{TASK}'")]
    return list(client.search_runs(ids, f"tags.`poolbench.kind` = '{kind}'")) if ids else []


def assert_complete(ledgers: Sequence[Ledger], server: Server) -> None:
    """Assert that every cell has one run and every group one parent, which is that of its seeds."""
    cells = {cell.id: cell.group for ledger in ledgers for cell in (result.cell for result in ledger.results())}
    seeds = [run for run in runs(server, "seed") if run.data.tags["poolbench.cell"] in cells]
    groups = [run for run in runs(server, "group") if run.data.tags["poolbench.group"] in cells.values()]
    assert Counter(run.data.tags["poolbench.cell"] for run in seeds) == Counter(dict.fromkeys(cells, 1))
    assert Counter(run.data.tags["poolbench.group"] for run in groups) == Counter(set(cells.values()))
    assert {run.info.status for run in (*seeds, *groups)} == {"FINISHED"}
    parents = {run.info.run_id: run.data.tags["poolbench.group"] for run in groups}
    assert all(parents[run.data.tags["mlflow.parentRunId"]] == run.data.tags["poolbench.group"] for run in seeds)
    means = {run.data.tags["poolbench.group"]: run.data.metrics["accuracy"] for run in groups}
    for group, mean in means.items():
        own = [run.data.metrics["accuracy"] for run in seeds if run.data.tags["poolbench.group"] == group]
        assert mean == pytest.approx(sum(own) / len(own), abs=1e-4)


def test_eight_writers_at_once(server: Server, tmp_path: Path) -> None:
    ledgers = [fill(tmp_path / str(number), number) for number in range(1 + WRITERS - SHARED)]
    # The last writers share a folder.
    written = new_runs(sync_at_once([*ledgers, *[ledgers[-1]] * (SHARED - 1)], server))
    assert written == sum(len(ledger.results()) for ledger in ledgers) == 24
    assert_complete(ledgers, server)
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    for run in runs(server, "group"):
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        table = pd.read_csv(client.download_artifacts(run.info.run_id, "tables/answers.csv", str(tmp_path)))
        assert sorted(table["seed"]) == [0, 0, 1, 1]
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["made-up"]
    before = {run.info.run_id for kind in ("seed", "group") for run in runs(server, kind)}
    assert new_runs(sync_at_once(ledgers, server)) == 0
    assert {run.info.run_id for kind in ("seed", "group") for run in runs(server, kind)} == before


def test_after_a_power_cut_in_a_sync_the_next_one_completes_it(server: Server, tmp_path: Path) -> None:
    ledger = fill(tmp_path / "cut", WRITERS + 1, seeds=10)
    before = len(runs(server, "seed"))
    command = [sys.executable, "-m", "poolbench.cli", "sync", "--out", str(ledger.folder), "--tracking-uri", server.uri]
    sync = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + PATIENCE
    while len(runs(server, "seed")) < before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in server.processes():
        process.kill()
    said, _ = sync.communicate(timeout=PATIENCE)
    assert sync.returncode == 1, said
    assert "nothing is lost: the server at " in said
    assert "Traceback" not in said
    assert server.process is not None
    server.process.wait()
    server.start()
    assert 0 < new_runs(sync_at_once([ledger], server)) < 20
    assert_complete([ledger], server)


def test_two_processes_run_each_trial_of_a_study_once(server: Server) -> None:
    environment = {**os.environ, "PGPASSWORD": server.password}
    # Two processes that make Optuna's tables at the same time fail, so they are made before.
    create = f"import optuna; optuna.create_study(study_name='shared', storage={server.database!r})"
    subprocess.run([sys.executable, "-c", create], env=environment, check=True, timeout=PATIENCE)
    command = [sys.executable, "-c", TRIALS, server.database]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    ran = [{int(line) for line in out.splitlines()} for out, _ in told]
    assert [len(numbers) for numbers in ran] == [20, 20]
    assert ran[0] | ran[1] == set(range(40))


def test_two_tuners_without_a_common_folder_share_a_study(server: Server, tmp_path: Path) -> None:
    selection = (TASK, "--preset", "smoke", "--head", "gem", "--where", "variant=corrected")
    more = ("--trials", "5", "--trial-seeds", "2", "--no-mlflow", "--storage", server.database, "--out")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    tuners = [
        subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", "tune", *selection, *more, str(tmp_path / name)],
            env={**os.environ, "PGPASSWORD": server.password}, **pipes,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    said = [tuner.communicate(timeout=PATIENCE)[0] for tuner in tuners]
    assert [tuner.returncode for tuner in tuners] == [0, 0], said
    (one,), (other,) = (records(tmp_path / name) for name in ("one", "two"))
    assert one.trials == other.trials
    assert one.best == other.best
    assert len(one.trials) == 5
    assert len({tuple(trial.parameters.items()) for trial in one.trials}) == 5
    # Each ran some of the trials: their cells lie in its own ledger, and no trial was run by both.
    trained = []
    for name in ("one", "two"):
        cells = [result.cell for result in Ledger(tmp_path / name / "tuning" / one.id).results()]
        trained.append({cell.train.learning_rate for cell in cells if cell.seed in one.design.trial_seeds})
    assert trained[0] | trained[1] == {trial.parameters["learning_rate"] for trial in one.trials}
    assert not trained[0] & trained[1]


def test_another_database_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra postgres)")
    address = "postgresql+psycopg://ann:secret@127.0.0.1:9/optuna"
    command = ["tune", TASK, "--preset", "smoke", "--trials", "1", "--storage", address, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "poolbench.cli", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_password_is_in_no_command_line(server: Server) -> None:
    lines = [" ".join(process.cmdline()) for process in server.processes()]
    assert any("mlflow" in line for line in lines)
    assert not [line for line in lines if server.password in line]
    assert oct((server.folder / "server" / "password").stat().st_mode)[-3:] == "600"


def test_a_port_in_use_is_one_line(server: Server, tmp_path: Path) -> None:
    assert f"port {server.port} is in use" in refusal(str(tmp_path), str(server.port), PYTHON=sys.executable)


def test_the_servers_end_with_the_script(server: Server) -> None:
    others = server.processes()[1:]
    assert server.stop(signal.SIGINT) == 0
    assert not server.is_listening()
    assert psutil.wait_procs(others, timeout=PATIENCE)[1] == []
    assert "database system is shut down" in (server.folder / "server" / "postgres.log").read_text()


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)")
@pytest.mark.parametrize(
    ("arguments", "python", "line"),
    [
        ((), sys.executable, "usage: deploy/serve.sh FOLDER [PORT]"),
        (("http",), sys.executable, "got 'http'"),
        (("80",), sys.executable, "from 1024 to 65534, got '80'"),
        (("65535",), sys.executable, "got '65535'"),
        (("5000",), "/bin/false", "pip install 'poolbench[postgres]'"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: Sequence[str], python: str, line: str, tmp_path: Path) -> None:
    folder = [str(tmp_path / "server")] if arguments else []
    assert line in refusal(*folder, *arguments, PYTHON=python)
    assert not (tmp_path / "server").exists()


def refusal(*arguments: str, **environment: str) -> str:
    command = ["bash", str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_the_compose_file_serves_this_machine_alone_and_keeps_its_data() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"database", "mlflow"}
    database, server = compose["services"]["database"], compose["services"]["mlflow"]
    for service in (database, server):
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]["test"]
    assert server["depends_on"]["database"]["condition"] == "service_healthy"
    assert server["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "--serve-artifacts --artifacts-destination /artifacts" in server["command"]
    # Volumes by name outlive the containers; paths are files of deploy/.
    mounted = [entry.split(":")[0] for service in (database, server) for entry in service["volumes"]]
    volumes = {name for name in mounted if not name.startswith("./")}
    assert volumes == set(compose["volumes"]) == {"database", "artifacts"}
    assert all((DEPLOY / name).is_file() for name in mounted if name.startswith("./"))
    # The password comes from a file that git ignores, and nothing starts without one.
    secret = "${POSTGRES_PASSWORD:?"
    assert database["environment"]["POSTGRES_PASSWORD"].startswith(secret)
    assert secret in server["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert "POSTGRES_PASSWORD=\n" in (DEPLOY / "example.env").read_text()
    assert ".env" in (DEPLOY / ".gitignore").read_text().splitlines()


def test_the_image_has_the_versions_of_the_tests() -> None:
    build = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["mlflow"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    steps = (ROOT / build["dockerfile"]).read_text()
    assert "COPY constraints.txt ." in steps
    assert 'pip install --no-cache-dir -c constraints.txt mlflow "psycopg[binary]" uvloop\n' in steps
    pins = (ROOT / "constraints.txt").read_text()
    assert f"\nmlflow=={mlflow.__version__}\n" in pins
    assert all(f"\n{name}==" in pins for name in ("psycopg", "psycopg-binary", "uvloop"))
