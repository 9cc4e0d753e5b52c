"""A store on a server: what arrives there, who is let in, and what a failure of the server costs."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
import requests
from click.testing import CliRunner, Result
from PIL import Image

from poolbench.cli import main
from poolbench.core import Cell
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark

mlflow = pytest.importorskip("mlflow")

from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable, default_uri  # noqa: E402

Content = Callable[[str], list[Any]]
Variables = dict[str, str]
ADMIN, SECRET, PATIENCE = "ann", "correct-horse-battery", 120
LOGIN = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": SECRET}
TOKEN = {"MLFLOW_TRACKING_TOKEN": SECRET}


class Server:
    """An MLflow server on a free port of 127.0.0.1 with proxied artifacts; its store outlives it."""

    def __init__(self, folder: Path, scheme: str = "http", *options: str, **environment: str) -> None:
        self.folder, self.options, self.environment = folder, options, environment
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.uri = f"{scheme}://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        if self.process:
            return
        store = f"sqlite:///{self.folder}/server.db"
        files = ("--serve-artifacts", "--artifacts-destination", str(self.folder / "files"))
        own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self.environment}
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", "1", "--backend-store-uri", store, *files, *self.options],
                cwd=self.folder, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        unchecked = ssl._create_unverified_context()
        for _ in range(PATIENCE * 5):
            with suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5, context=unchecked).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        pytest.fail(f"the server does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill it with its workers, as a power cut does."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("plain"))
    yield server
    server.kill()


@pytest.fixture
def server(plain: Server) -> Iterator[Server]:
    """A running server whose experiments are put aside after the test."""
    plain.start()
    yield plain
    plain.start()
    client = mlflow.MlflowClient(tracking_uri=plain.uri)
    for one in client.search_experiments():
        if one.name != "Default":
            client.rename_experiment(one.experiment_id, f"of an earlier test {one.experiment_id}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a self-signed certificate for 127.0.0.1 and of its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, host = datetime.now(UTC), x509.IPAddress(ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    pem, plain_text = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain_text))
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Server]:
    """A server that speaks TLS and asks for a user and password."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth needs Flask-WTF")
    tls = f"--ssl-certfile {certificate[0]} --ssl-keyfile {certificate[1]}"
    login = {"MLFLOW_AUTH_ADMIN_USERNAME": ADMIN, "MLFLOW_AUTH_ADMIN_PASSWORD": SECRET}
    options = ("--app-name", "basic-auth", "--uvicorn-opts", tls)
    cookies = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "for cookies"}
    server = Server(tmp_path_factory.mktemp("secured"), "https", *options, **login, **cookies)
    server.start()
    yield server
    server.kill()


class Proxy:
    """Stands between client and server: asks for a login, loses answers, or breaks down."""

    def __init__(self, server: Server) -> None:
        self.authorization: str | None = None
        self.lost: Callable[[str], bool] = lambda path: False
        self.requests, self.dies_after = 0, sys.maxsize
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                proxy.answer(self, server)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, server: Server) -> None:
        self.requests += 1
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if self.requests > self.dies_after:
            return
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            request.send_error(401)
            return
        behind = HTTPConnection("127.0.0.1", server.port, timeout=60)
        kept = {key: value for key, value in request.headers.items() if key.lower() not in ("host", "authorization")}
        behind.request(request.command, request.path, body, kept)
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        # Whoever dies, dies after the server has done what the last request asked for.
        if self.requests == self.dies_after or self.lost(request.path):
            return
        request.send_response(answer.status)
        request.send_header("Content-Type", answer.getheader("Content-Type", ""))
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[Variables], None]:
    """Set environment variables, those of MLflow's client being unset before."""
    for name in (*LOGIN, *TOKEN, "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_INSECURE_TLS"):
        monkeypatch.delenv(name, raising=False)

    def give(variables: Variables) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


def refusal(ledger: Ledger, uri: str) -> str:
    """Return the line about a store that cannot be used."""
    with pytest.raises(TrackingUnavailable) as error:
        MlflowSink(ledger.folder, uri).sync([ledger])
    line = str(error.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


def project_failure(filled: Ledger, uri: str) -> None:
    """Write the run of the failed cell. A whole sync takes long where each request has its password checked."""
    (failed,) = [result for result in filled.results() if result.status == "failed"]
    MlflowSink(filled.folder, uri).project(failed, filled.invocations()[0])


def command(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment, prog_name="poolbench", catch_exceptions=False)


def with_user(uri: str, password: str) -> str:
    return uri.replace("://", f"://{ADMIN}:{password}@")


def test_a_server_gets_what_a_local_store_gets(filled: Ledger, server: Server, content_of: Content) -> None:
    assert MlflowSink(filled.folder).sync([filled]) == MlflowSink(filled.folder, server.uri).sync([filled]) == 5
    assert content_of(server.uri) == content_of(default_uri(filled.folder))
    before = content_of(server.uri)
    assert MlflowSink(filled.folder, server.uri).sync([filled]) == 0
    assert content_of(server.uri) == before
    tags = [
        mlflow.MlflowClient(uri).get_experiment_by_name("tiny").tags for uri in (server.uri, default_uri(filled.folder))
    ]
    assert tags[0] == tags[1]
    assert {"mlflow.sharedViewState.poolbench-groups", "mlflow.sharedViewState.poolbench-seeds"} <= set(tags[0])


def test_figures_tables_and_reports_arrive_through_the_server(
    study: Benchmark, store_all: Callable[..., Any], ledger: Ledger, server: Server, tmp_path: Path
) -> None:
    store_all({"max": (0.9, 0.8), "avg": (0.7, 0.6)})
    invocation = ledger.open_invocation("poolbench run study", "quick")
    invocation.close("finished")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<!doctype html>here")
    sink = MlflowSink(ledger.folder, server.uri)
    sink.sync([ledger])
    sink.publish(invocation, tmp_path / "report")
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    ids = [client.get_experiment_by_name(name).experiment_id for name in ("study", "poolbench commands")]
    found = {run.info.run_name: run for run in client.search_runs(ids)}

    def content(run: str, path: str) -> bytes:
        assert found[run].info.artifact_uri.startswith("mlflow-artifacts:")
        return Path(client.download_artifacts(found[run].info.run_id, path, str(tmp_path))).read_bytes()

    assert Image.open(BytesIO(content("max", "figures/map.png"))).size > (100, 100)
    table = pd.read_csv(BytesIO(content("avg", "tables/layers.csv")))
    assert sorted(table["seed"].unique()) == [0, 1]
    assert table["V"].max() == pytest.approx(9.2)
    assert content("poolbench run study", "report/report.html") == b"<!doctype html>here"


def test_a_server_with_tls_and_a_login_takes_user_and_password(
    filled: Ledger, secured: Server, certificate: tuple[Path, Path], given: Callable[[Variables], None]
) -> None:
    given({"MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate[0])})
    for variables in ({}, TOKEN, LOGIN | {"MLFLOW_TRACKING_PASSWORD": f"not {SECRET}"}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            line = refusal(filled, secured.uri)
        assert "(401)" in line
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
        assert secured.uri in line
    assert "(401)" in refusal(filled, with_user(secured.uri, f"not-{SECRET}"))
    given(LOGIN)
    for uri in (secured.uri, with_user(secured.uri, SECRET)):
        project_failure(filled, uri)
    client = mlflow.MlflowClient(tracking_uri=secured.uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (seed,) = [run for run in runs if run.data.tags["poolbench.kind"] == "seed"]
    assert "broken on purpose" in Path(client.download_artifacts(seed.info.run_id, "traceback.txt")).read_text()


def test_what_a_user_may_not_do_is_one_line(
    filled: Ledger, secured: Server, certificate: tuple[Path, Path], given: Callable[[Variables], None]
) -> None:
    given({"MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate[0]), **LOGIN})
    project_failure(filled, secured.uri)
    reader = {"username": "reader", "password": f"for {SECRET}"}
    address = f"{secured.uri}/api/2.0/mlflow/users/create"
    requests.post(address, json=reader, auth=(ADMIN, SECRET), verify=str(certificate[0]), timeout=60).raise_for_status()
    given({"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": f"for {SECRET}"})
    assert "does not permit this (403, Permission denied)" in refusal(filled, secured.uri)


def test_a_certificate_is_trusted_on_request(
    filled: Ledger, secured: Server, certificate: tuple[Path, Path], given: Callable[[Variables], None]
) -> None:
    given(LOGIN)
    line = refusal(filled, secured.uri)
    assert f"the certificate of the server at {secured.uri} is not trusted (self-signed certificate)" in line
    assert "set MLFLOW_TRACKING_SERVER_CERT_PATH" in line
    given({"MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate[0])})
    MlflowSink(filled.folder, secured.uri)
    assert "use the host name" in refusal(filled, secured.uri.replace("127.0.0.1", "localhost"))
    given({"MLFLOW_TRACKING_SERVER_CERT_PATH": "absent.pem"})
    assert "absent.pem" in refusal(filled, secured.uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        patch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        MlflowSink(filled.folder, secured.uri)


def test_a_wrong_address_is_one_line(filled: Ledger, server: Server, secured: Server) -> None:
    assert "use http://" in refusal(filled, server.uri.replace("http:", "https:"))
    assert "cannot be reached" in refusal(filled, secured.uri.replace("https:", "http:"))
    assert "does not answer as an MLflow server does (404)" in refusal(filled, f"{server.uri}/elsewhere")
    assert "cannot be reached (Connection refused)" in refusal(filled, with_user("http://127.0.0.1:9", SECRET))


def test_a_proxy_with_a_login_takes_a_token(
    filled: Ledger, proxy: Proxy, given: Callable[[Variables], None], content_of: Content
) -> None:
    proxy.authorization = f"Bearer {SECRET}"
    given({"MLFLOW_TRACKING_TOKEN": f"not {SECRET}"})
    assert "(401)" in refusal(filled, proxy.uri)
    given(TOKEN)
    assert MlflowSink(filled.folder, proxy.uri).sync([filled]) == 5
    MlflowSink(filled.folder).sync([filled])
    assert content_of(proxy.uri) == content_of(default_uri(filled.folder))


def test_a_user_in_the_address_is_not_shown(
    filled: Ledger, server: Server, proxy: Proxy, given: Callable[[Variables], None], tiny: Benchmark
) -> None:
    given({})
    proxy.authorization = "Basic " + base64.b64encode(f"{ADMIN}:{SECRET}".encode()).decode()
    uri = with_user(proxy.uri, SECRET)
    out = str(filled.folder)
    done = command(
        "run", "tiny", "--out", out, "--tracking-uri", uri, "--device", "cpu", "--jobs", "1", "--seeds", "0-2"
    )
    assert done.exit_code == 0, done.stderr
    report = (filled.folder / "report" / "report.html").read_text()
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    assert f"{proxy.uri}/#/experiments/{experiment}/runs" in report
    links = command("ui", "--out", out, MLFLOW_TRACKING_URI=uri)
    assert links.stdout.startswith(f"tiny: {proxy.uri}/#/experiments/{experiment}/runs?"), links.output
    commands = client.search_runs([client.get_experiment_by_name("poolbench commands").experiment_id])
    assert any("--tracking-uri http://127.0.0.1" in run.info.run_name for run in commands)
    told = [report, done.output, links.output, str(commands)]
    told += [path.read_text() for path in filled.folder.rglob("*.json")]
    assert not [text for text in told if SECRET in text]


def test_a_server_killed_in_a_sync_has_all_runs_after_the_next(
    filled: Ledger, server: Server, content_of: Content
) -> None:
    def dies(done: int, total: int) -> None:
        server.kill()

    with pytest.raises(TrackingUnavailable, match=r"^the server at .* cannot be reached \(Connection refused\)$"):
        MlflowSink(filled.folder, server.uri).sync([filled], dies)
    server.start()
    assert 0 < MlflowSink(filled.folder, server.uri).sync([filled]) < 5
    MlflowSink(filled.folder).sync([filled])
    assert content_of(server.uri) == content_of(default_uri(filled.folder))


@pytest.mark.parametrize("answered", [5, 24, 47, 62])  # of about 72
def test_a_server_that_dies_anywhere_leaves_nothing_half_written(
    filled: Ledger, server: Server, proxy: Proxy, content_of: Content, answered: int
) -> None:
    MlflowSink(filled.folder).sync([filled])
    proxy.dies_after = answered
    refusal(filled, proxy.uri)
    MlflowSink(filled.folder, server.uri).sync([filled])
    assert content_of(server.uri) == content_of(default_uri(filled.folder))


def test_a_lost_answer_leaves_no_run_twice(filled: Ledger, proxy: Proxy, content_of: Content) -> None:
    lost: list[str] = []

    def every_other(path: str) -> bool:
        if path.endswith("runs/create"):
            lost.append(path)
        return path.endswith("runs/create") and len(lost) % 2 == 1

    proxy.lost = every_other
    MlflowSink(filled.folder, proxy.uri).sync([filled])
    assert len(lost) == 2 * (3 + 5 + 1)
    MlflowSink(filled.folder, proxy.uri).sync([filled])
    MlflowSink(filled.folder).sync([filled])
    assert content_of(proxy.uri) == content_of(default_uri(filled.folder))


def test_a_server_killed_in_a_run_costs_one_line(
    ledger: Ledger,
    tiny: Benchmark,
    cells: list[Cell],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    content_of: Content,
) -> None:
    project = MlflowSink.project

    def then_dies(self: MlflowSink, *arguments: Any) -> None:
        project(self, *arguments)
        server.kill()

    monkeypatch.setattr(MlflowSink, "project", then_dies)
    out = str(ledger.folder)
    done = command("run", "tiny", "--out", out, "--tracking-uri", server.uri, "--device", "cpu", "--jobs", "1")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("MLflow") == done.stderr.count("going on without MLflow") == 1
    assert done.stderr.count(server.uri) == 1
    assert len([r for r in ledger.results() if r.status == "finished"]) == len(cells)
    down = command("sync", "--out", out, "--tracking-uri", server.uri)
    assert down.exit_code == 1
    assert down.stderr.startswith("poolbench: not all is in MLflow, nothing is lost: the server at ")
    server.start()
    assert "3 runs of seeds are new" in command("sync", "--out", out, "--tracking-uri", server.uri).stderr
    assert "4 runs of seeds are new" in command("sync", "--out", out).stderr
    assert content_of(server.uri) == content_of(default_uri(ledger.folder))


def test_a_server_that_hangs_is_given_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrackingUnavailable):
        MlflowSink(ledger.folder, "http://127.0.0.1:9")
    # All that it can cost a command, in seconds: after the first failure nothing more is tried.
    limits = [int(os.environ[f"MLFLOW_HTTP_REQUEST_{name}"]) for name in ("TIMEOUT", "MAX_RETRIES")]
    assert limits[0] * (1 + limits[1]) <= 60
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert refusal(ledger, uri).startswith(f"the server at {uri} does not answer")


def test_a_lost_answer_makes_no_experiment_twice(filled: Ledger, proxy: Proxy, content_of: Content) -> None:
    lost: list[str] = []

    def first(path: str) -> bool:
        is_first = path.endswith("experiments/create") and not lost
        lost.extend([path] * is_first)
        return is_first

    proxy.lost = first
    assert MlflowSink(filled.folder, proxy.uri).sync([filled]) == 5
    assert lost
    MlflowSink(filled.folder).sync([filled])
    assert content_of(proxy.uri) == content_of(default_uri(filled.folder))


class Split:
    """Two work folders with one seed each of the same two groups, and a third one with all: the two merged."""

    def __init__(self, folder: Path, cells: list[Cell], run_cells: Callable[..., Any]) -> None:
        self.parts = [Ledger(folder / name).create() for name in ("one", "two")]
        for seed, ledger in enumerate(self.parts):
            run_cells([cell for cell in cells if cell.seed == seed], ledger)
        self.whole = Ledger(folder / "whole").create()
        for ledger in self.parts:
            shutil.copytree(ledger.folder / "cells", self.whole.folder / "cells", dirs_exist_ok=True)


@pytest.fixture
def split(tmp_path: Path, cells: list[Cell], run_cells: Callable[..., Any]) -> Split:
    return Split(tmp_path, cells, run_cells)


def family(uri: str) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Return {run of a seed: its parent} and {run of a group: the seeds in its table} of the benchmark "tiny"."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    seeds = {run.info.run_id: run.data.tags["mlflow.parentRunId"] for run in found if "poolbench.cell" in run.data.tags}
    groups = {}
    for run in found:
        if run.info.run_id not in seeds:
            table = pd.read_csv(client.download_artifacts(run.info.run_id, "tables/layers.csv"))
            groups[run.info.run_id] = sorted(set(table["seed"]))
    return seeds, groups


def test_two_folders_with_seeds_of_one_group_leave_each_other_alone(split: Split, server: Server) -> None:
    written = [MlflowSink(ledger.folder, server.uri).sync([ledger]) for ledger in split.parts]
    assert written == [2, 2]
    seeds, groups = family(server.uri)
    # Each folder has its seeds below its own run of each group.
    assert len(set(seeds.values())) == len(seeds) == 4
    assert set(groups) == set(seeds.values())
    assert sorted(groups.values()) == [[0], [0], [1], [1]]
    assert [MlflowSink(ledger.folder, server.uri).sync([ledger]) for ledger in split.parts] == [0, 0]
    assert family(server.uri) == (seeds, groups)


def test_merged_folders_bring_their_groups_together(split: Split, server: Server) -> None:
    for ledger in split.parts:
        MlflowSink(ledger.folder, server.uri).sync([ledger])
    before, _ = family(server.uri)
    assert MlflowSink(split.whole.folder, server.uri).sync([split.whole]) == 0
    seeds, groups = family(server.uri)
    assert set(seeds) == set(before)
    assert set(groups) == set(seeds.values())
    assert list(groups.values()) == [[0, 1], [0, 1]]
    # The parts have nothing to add, and take nothing away.
    assert [MlflowSink(ledger.folder, server.uri).sync([ledger]) for ledger in split.parts] == [0, 0]
    assert family(server.uri) == (seeds, groups)


def test_a_folder_shows_its_cells_below_its_own_group_while_it_runs(split: Split, server: Server) -> None:
    one, two = split.parts
    MlflowSink(one.folder, server.uri).sync([one])
    _, groups = family(server.uri)
    invocation = two.open_invocation("poolbench run tiny", "quick")
    sink = MlflowSink(two.folder, server.uri)
    for result in two.results():
        sink.project(result, invocation)
    invocation.close("finished")
    assert sink.sync([two]) == 0
    seeds, now = family(server.uri)
    assert len(seeds) == len(set(seeds.values())) == 4
    assert set(groups) < set(now)
    assert sorted(now.values()) == [[0], [0], [1], [1]]
