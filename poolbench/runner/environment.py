"""The environment of a result: versions, device, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from poolbench import __version__
from poolbench.core import UsageError

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "mlflow", "optuna")
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
    """Return the commit of the running checkout, "" outside of one."""
    for folder in (Path(__file__).parent, Path.cwd()):
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ) if _has_git() else None  # fmt: skip
        if done is not None and done.returncode == 0:
            return done.stdout.strip()
    return ""


def _has_git() -> bool:
    from shutil import which

    return which("git") is not None


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
