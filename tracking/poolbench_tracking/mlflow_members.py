"""The comparison groups of ledgers, as they become runs of MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from poolbench.analysis.frames import varying_fields
from poolbench.core import Result
from poolbench.registry import benchmarks
from poolbench.runner.evidence import Evidence
from poolbench_tracking.mlflow_runs import Members


def members_of(found: Sequence[Evidence]) -> dict[str, list[Members]]:
    """Return the groups of all finished and failed cells of known tasks, by experiment, from judged results."""
    known = {name: benchmarks.get(name)() for name in benchmarks.names()}
    by_group: dict[str, list[tuple[Result, Evidence]]] = {}
    for evidence in found:
        for result in evidence.results:
            if result.status in ("finished", "failed") and result.cell.benchmark in known:
                by_group.setdefault(result.cell.group, []).append((result, evidence))
    experiments: dict[str, list[Members]] = {}
    for pairs in by_group.values():
        # The studies of a tuning have cells of their own, so a group lies in one ledger.
        results, evidence = sorted((result for result, _ in pairs), key=lambda r: r.cell.seed), pairs[0][1]
        members = Members(known[results[0].cell.benchmark], results, (), evidence)
        experiments.setdefault(members.benchmark.name, []).append(members)
    return {name: _with_varying(groups) for name, groups in experiments.items()}


def _with_varying(groups: Sequence[Members]) -> list[Members]:
    """Return the groups of an experiment with the fields that vary between them."""
    varying = varying_fields(pd.DataFrame([members.cell.fields for members in groups]))
    return [replace(members, varying=varying) for members in groups]
