"""Ray: a cluster of two nodes whose workers, nodes and drivers are killed; what travels; what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from poolbench.cli import main
from poolbench.core import Cell, DataLocation, UsageError
from poolbench.plugins import import_code, pack_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import run_cells
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.runner.record import CHECKPOINT, CONFIG, Append, Delete, Finish, Write

pytestmark = [pytest.mark.slow, pytest.mark.ray]
pytest.importorskip("ray")
nodes = import_code(str(Path(__file__).with_name("_ray_nodes.py")))
ray_node = import_code("poolbench.runner.ray_node")
SETTINGS = Settings(DataLocation("data"), "cpu", "an invocation", checkpoint_seconds=0)
EPOCHS = 8
UNDER_WAY = [["started", *["epoch"] * count] for count in range(1, EPOCHS - 1)]
SELECTION = ["shift_robustness", "--preset", "smoke", "--pool", "max", "--arch", "shape_net", "--device", "cpu"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes.Cluster() as cluster:
        yield cluster


@pytest.fixture
def drive(tmp_path: Path, cluster: Any) -> Iterator[Callable[..., Driver]]:
    """Start ``poolbench run`` on the cluster; what still runs at the end of the test is killed."""
    drivers: list[Driver] = []

    def start(*arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, cluster.address, *arguments))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.communicate()


class Driver:
    """``poolbench run`` on the cluster, as a process."""

    def __init__(self, folder: Path, address: str, *arguments: str) -> None:
        self.out = folder / "poolbench-out"
        command = ["run", *arguments, "--no-mlflow", "--executor", "ray", "--address", address]
        self.process = psutil.Popen(
            [sys.executable, "-m", "poolbench.cli", *command],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **nodes.ENVIRONMENT},
        )  # fmt: skip

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        def reached() -> object:
            assert self.process.poll() is None, self.process.communicate()
            return condition()

        nodes.wait_until(reached, seconds)

    def finish(self) -> tuple[str, str]:
        outputs: tuple[str, str] = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, outputs
        return outputs

    def finished(self) -> list[Path]:
        return [path.parent for path in self.out.glob("cells/*/result.json")]

    def under_way(self) -> int:
        """Return how many cells are in their first attempt, after the first and before the last but one epoch."""
        logs = [path.read_text() for path in self.out.glob("cells/*/events.jsonl")]
        events = [[json.loads(line)["event"] for line in log.splitlines() if line.endswith("}")] for log in logs]
        return sum(names in UNDER_WAY for names in events)

    def attempts(self) -> list[int]:
        return [path.read_text().count('"event": "started"') for path in self.out.glob("cells/*/events.jsonl")]

    def epochs(self) -> int:
        return sum(path.read_text().count('"event": "epoch"') for path in self.out.glob("cells/*/events.jsonl"))


def results(out: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of each finished cell, times excepted."""
    return {
        path.parent.name: {
            name: value for name, value in json.loads(path.read_text())["metrics"].items() if not name.endswith("_ms")
        }
        for path in out.glob("cells/*/result.json")
    }


def kill_training(node: Any) -> None:
    for process in node.training():
        process.kill()


def test_a_worker_and_a_node_die_and_every_cell_ends_once_as_in_a_local_run(
    tmp_path: Path, cluster: Any, drive: Callable[..., Driver]
) -> None:
    node = cluster.add_node()
    selection = ["global_pooling", "--preset", "smoke", "--epochs", str(EPOCHS), "--device", "cpu"]
    driver = drive(*selection)
    driver.wait_until(lambda: driver.under_way() == 2)
    kill_training(cluster.nodes[0])
    # A second death would fail the cell, so the node has to wait for the end of the first one's retry.
    driver.wait_until(lambda: 2 in driver.attempts())
    driver.wait_until(lambda: driver.under_way() == 2)
    cluster.kill(node)
    output, errors = driver.finish()
    assert output.splitlines() == [str(Path("poolbench-out/report/report.html"))]
    assert "Ray: 2 nodes with 2 CPUs and 0 GPUs; up to 2 at once on 'cpu'" in errors
    lines = [line for line in errors.splitlines() if line.startswith("[") and " finished accuracy " in line]
    assert len(lines) == 8
    assert "8 finished" in errors
    here = subprocess.run(
        [sys.executable, "-m", "poolbench.cli", "run", *selection, "--no-mlflow", "--out", "here"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert here.returncode == 0, here.stderr
    assert results(driver.out) == results(tmp_path / "here")
    assert sorted(driver.attempts()) == [1] * 6 + [2] * 2


def test_a_killed_driver_loses_nothing_and_its_tasks_end(
    tmp_path: Path, cluster: Any, drive: Callable[..., Driver]
) -> None:
    selection = [*SELECTION, "--epochs", "40"]
    driver = drive(*selection)
    driver.wait_until(lambda: driver.finished() and driver.epochs() > 45)
    trained = [process for node in cluster.nodes for process in node.training()]
    assert trained
    driver.process.kill()
    driver.process.communicate()
    done, epochs = driver.finished(), driver.epochs()
    assert not psutil.wait_procs(trained, timeout=30)[1]
    assert (driver.finished(), driver.epochs()) == (done, epochs)
    _, errors = drive(*selection).finish()
    assert f"4 cells, {len(done)} done before, {4 - len(done)} to run" in errors
    assert len(driver.finished()) == 4
    assert all((folder / "events.jsonl").read_text().count('"event": "epoch"') == 40 for folder in done)


def test_a_checkpoint_travels_and_no_epoch_is_trained_twice(ledger: Ledger, tmp_path: Path) -> None:
    """A cell stopped after three epochs goes on elsewhere and ends with the bits of one that was not stopped."""
    cell = plan(Selection(("shift_robustness",), "smoke", pools=("max",), seeds=(0,), train={"epochs": 6}))[0]
    whole = Ledger(tmp_path / "whole").create()
    run_cells([cell], [whole.record(cell.id)], SETTINGS, lambda cell, row: None)

    def stop(cell: Cell, row: dict[str, float]) -> None:
        if row["epoch"] == 4:
            raise KeyboardInterrupt

    record = ledger.record(cell.id)
    with pytest.raises(KeyboardInterrupt):
        run_cells([cell], [record], SETTINGS, stop)
    order = ray_node.Order([cell], [record.checkpoint()], SETTINGS, ())
    changes = [sent.change for batch in ray_node.run_order(order) for sent in batch]
    events = [json.loads(change.line) for change in changes if isinstance(change, Append)]
    assert [event["event"] for event in events] == ["resumed", "epoch", "epoch", "epoch"]
    written = [change.name for change in changes if isinstance(change, Write)]
    assert written[:4] == [CONFIG, *[CHECKPOINT] * 3]
    assert isinstance(changes[-2], Finish)
    assert changes[-1] == Delete(CHECKPOINT)
    for change in changes:
        record.change(change)
    assert results(ledger.folder) == results(whole.folder)
    content = [(one.record(cell.id).folder / "weights.pt").read_bytes() for one in (ledger, whole)]
    assert content[0] == content[1]


PLUGIN = """
from poolbench.pooling.local import MaxPool
from poolbench.registry import pools

@pools.register("travelling", reference="here", shift_equivariant=False, learnable=False, random=False)
class Travelling(MaxPool):
    "A maximum from a file that only the driver has."
"""


def test_a_plugin_file_travels_as_text(tmp_path: Path) -> None:
    """The node, here a process of its own, imports it without the file."""
    file = tmp_path / "travelling.py"
    file.write_text(PLUGIN)
    parcels = pack_plugins([str(file)])
    file.unlink()
    script = (
        "from poolbench.plugins import Parcel, plugin_of, unpack_plugins\n"
        "from poolbench.registry import pools\n"
        f"unpack_plugins({parcels!r}); unpack_plugins({parcels!r})\n"
        "print(plugin_of(pools.module('travelling')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (str(file), "")


def test_a_plugin_file_that_needs_its_neighbours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "needy.py"
    file.write_text("import a_neighbour_of_mine")
    order = ray_node.Order([], [], SETTINGS, pack_plugins([str(file)]))
    with pytest.raises(UsageError, match=r"cannot be imported on another machine.*only its own text travels"):
        list(ray_node.run_order(order))


def test_a_node_with_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has poolbench .*, the driver 0: install the same"):
        list(ray_node.run_order(replace(ray_node.Order([], [], SETTINGS, ()), version="0")))


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(
        main, ["run", *SELECTION[:-1], "auto", "--no-mlflow", "--executor", "ray", *arguments], prog_name="poolbench"
    )
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert [line.startswith("poolbench: ") for line in lines][-1]
    assert "Traceback" not in done.output
    return lines[-1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "nothing answers at --address 127.0.0.1:9"),
        ("ray://127.0.0.1:10001", "--address is auto or HOST:PORT, got 'ray://127.0.0.1:10001'"),
        ("somewhere", "--address is auto or HOST:PORT, got 'somewhere'"),
    ],
)
def test_a_wrong_address_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused("--address", address)


def test_an_address_needs_the_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--address names a Ray cluster: add --executor ray" in refused("--executor", "local", "--address", "auto")


def test_without_ray_the_executor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'poolbench[ray]'" in refused()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "99"], "--jobs 99 is more than the Ray cluster takes"),
        (["--device", "cuda"], "the Ray cluster has no place on 'cuda': it has"),
        (["--device", "cuda:1"], "Ray chooses the GPU: --device is auto, cpu or cuda, got 'cuda:1'"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(
    drive: Callable[..., Driver], arguments: list[str], message: str
) -> None:
    driver = drive(*SELECTION, *arguments)
    _, errors = driver.process.communicate(timeout=60)
    assert driver.process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith("poolbench: ")
    assert message in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_wrong_token_is_refused(drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nodes.ENVIRONMENT, "RAY_AUTH_TOKEN", "f" * 64)
    driver = drive(*SELECTION)
    _, errors = driver.process.communicate(timeout=60)
    assert driver.process.returncode == 2, errors
    assert "no Ray cluster can be used at --address" in errors.splitlines()[-1]
    assert "token" in errors.splitlines()[-1]


def test_a_plugin_and_missing_data_on_the_nodes(tmp_path: Path, drive: Callable[..., Driver]) -> None:
    (tmp_path / "travelling.py").write_text(PLUGIN)
    arguments = ["--seeds", "0", "--plugin", "travelling.py"]
    selection = ["global_pooling", "--preset", "smoke", "--head", "avg", "--pool", "travelling", "--device", "cpu"]
    driver = drive(*selection, *arguments)
    driver.finish()
    events = [(folder / "events.jsonl").read_text() for folder in driver.finished()]
    assert len(events) == 2
    assert all(json.loads(text.splitlines()[0])["plugins"] == ["travelling.py"] for text in events)
    driver = drive(*selection, *arguments, "--dataset", "fashion_mnist")
    _, errors = driver.process.communicate(timeout=120)
    assert driver.process.returncode == 3, errors
    assert "on Ray, data has to be on every node" in errors
    assert str(tmp_path / "data") in errors
