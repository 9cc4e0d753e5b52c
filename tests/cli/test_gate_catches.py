"""The gate on networks that are really trained: a planted fault is caught, other CPU kernels are not.

The same with all faults and twenty nights, at the size of the nightly preset, is in docs/lab/gate.md.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

FAULTS = Path(__file__).parents[1] / "gate" / "faults"
CELLS = (
    "global_pooling", "--preset", "nightly", "--where", "variant=corrected", "--head", "avg,max", "--epochs", "3",
    "--seeds", "0-4", "--device", "cpu", "--jobs", "1", "--no-mlflow",
)  # fmt: skip
Poolbench = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_fault_is_caught_and_other_kernels_are_not(poolbench: Poolbench, tmp_path: Path) -> None:
    assert poolbench("run", *CELLS, "--out", "first").returncode == 0
    assert poolbench("baseline", "accept", "baseline", "--out", "first").returncode == 0
    kernels = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert poolbench("run", *CELLS, "--out", "machine", **kernels).returncode == 0
    unchanged = poolbench("regress", "--baseline", "baseline", "--out", "machine")
    assert unchanged.returncode == 0, unchanged.stdout
    assert "No group ran in the baseline's environment" in unchanged.stdout
    plugin = ("--plugin", str(FAULTS / "moments_in_evaluation.py"))
    assert poolbench("run", *CELLS, *plugin, "--out", "faulty").returncode == 0
    caught = poolbench("regress", "--baseline", "baseline", "--out", "faulty")
    assert caught.returncode == 1, caught.stdout
    assert "2 of 2 groups changed bits in the baseline's environment." in caught.stdout
