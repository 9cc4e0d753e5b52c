"""A Ray cluster of several nodes on this machine, each one a process tree that a test may kill."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

RUNNING = "ray::run_order"  # the title of a process that trains
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's nodes listen on all interfaces, so only those that know this token may use them.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def training(root: psutil.Process) -> list[psutil.Process]:
    """Return the processes below ``root`` that train."""
    found = []
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(RUNNING):
                found.append(process)
    return found


class Node:
    """``ray start`` with one CPU, as a child of the test."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / f"node-{time.monotonic_ns()}.log"
        common = ["--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000", "--block"]
        with open(self.log, "w") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *common, *arguments],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, **ENVIRONMENT},
            )  # fmt: skip
        wait_until(lambda: "Ray runtime started" in self.log.read_text())

    def training(self) -> list[psutil.Process]:
        return training(self.process)


class Cluster:
    """A head and the nodes that were added, with one CPU each, at ``address``; it ends with the context."""

    def __enter__(self) -> Cluster:
        # Not below tmp_path: the paths of Ray's sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="pb-ray-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        head = ["--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", str(self.folder)]
        self.nodes = [Node(self.folder, "--node-ip-address", "127.0.0.1", *head)]
        return self

    def __exit__(self, *error: object) -> None:
        for node in [*self.nodes]:
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_node(self) -> Node:
        self.nodes.append(Node(self.folder, "--address", self.address))
        return self.nodes[-1]

    def kill(self, node: Node) -> None:
        """End all processes of a node with SIGKILL, as a power cut does."""
        self.nodes.remove(node)
        tree = [node.process, *node.process.children(recursive=True)]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=10)
        node.process.wait()
