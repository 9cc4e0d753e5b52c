"""The environment of a result: versions, device, commit."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from poolbench import __version__
from poolbench.core import UsageError

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "mlflow", "optuna")
FILE = "poolbench/runner/environment.py"
KERNEL_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Environment variables that choose CPU kernels, and with them the last bits of every result."""


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda[:i]" for a device name or "auto"; raise UsageError if there is no such device."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not re.fullmatch(r"[0-9]{1,4}", index)) or (kind == "cpu" and index):
        raise UsageError(f"unknown device '{name}' (there are: auto, cpu, cuda, cuda:0, ...)")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise UsageError(f"device '{name}' is not there: torch sees {count} CUDA devices; use --device cpu")
    return name


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the code that runs, "" where it is not known.

    That is the HEAD of the checkout that tracks this file, or of the checkout that pip installed the package from. The
    latter is right as long as it is installed anew after each change of the checkout.
    The current folder does not count: it may be a checkout of other code.
    """
    file = Path(__file__)
    if _git(file.parent, "ls-files", "--error-unmatch", file.name):
        return _git(file.parent, "rev-parse", "HEAD")
    origin = _installed_from()
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return str(commit)
    url = urlsplit(origin.get("url", ""))
    if "dir_info" not in origin or url.scheme != "file":
        return ""
    source = Path(url2pathname(url.path))
    # A copy of poolbench may lie in the checkout of another project.
    return _git(source, "rev-parse", "HEAD") if _git(source, "ls-files", "--error-unmatch", FILE) else ""


def _installed_from() -> dict[str, Any]:
    """Return what pip recorded about the origin of the package (PEP 610), empty where it did not."""
    try:
        installed = distribution("poolbench")
    except PackageNotFoundError:
        return {}
    if Path(str(installed.locate_file(FILE))).resolve() != Path(__file__).resolve():
        # Another copy runs.
        return {}
    text = installed.read_text("direct_url.json")
    return dict(json.loads(text)) if text else {}


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints about a folder, "" where it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@lru_cache(maxsize=4)
def environment(device: str) -> dict[str, Any]:
    """Return versions, device name, CPU kernels, threads and commit, as stored with every cell.

    Call it in the process that trains, after ``engine.process.prepare_process`` has set the threads.
    """
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "poolbench": __version__,
        "python": platform.python_version(),
        **versions,
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernel_variables": {name: os.environ[name] for name in KERNEL_VARIABLES if name in os.environ},
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
