"""Where the numbers of a report come from: counts of cells, environments, data and commands."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.core import Result
from poolbench.runner.invocation import Invocation


@dataclass(frozen=True)
class Surroundings:
    """An environment (versions, device, ...) and the number of cells that ran in it."""

    values: Mapping[str, str]
    cells: int


@dataclass(frozen=True)
class DataFacts:
    """A data set as it was loaded; ``is_ambiguous`` if the same name and options had several digests."""

    name: str
    options: str
    digest: str
    source: str
    cells: int
    is_ambiguous: bool


def provenance(results: Sequence[Result], invocations: Sequence[Invocation], left_out: Sequence[str]) -> dict[str, Any]:
    """Return the variables of both report templates other than the sections.

    ``left_out`` says which cells of the work folder are not among the results.
    """
    seconds = sum(r.ended - r.started for r in results if r.ended is not None and r.started is not None)
    return {
        "written": _moment(time.time()),
        "total": len(results),
        "statuses": Counter(result.status for result in results),
        "unlearned": sum(not r.facts["learned"] for r in results if r.status == "finished"),
        "duration": _duration(seconds),
        "left_out": left_out,
        "failed": [result for result in results if result.status == "failed"],
        "skipped": [result for result in results if result.status == "skipped"],
        "unfinished": [result for result in results if result.status in ("pending", "running")],
        "environments": _environments(results),
        "data": _data(results),
        "invocations": [_command(invocation) for invocation in invocations],
    }


def _environments(results: Sequence[Result]) -> list[Surroundings]:
    found = Counter(json.dumps(r.facts["environment"], sort_keys=False) for r in results if "environment" in r.facts)
    return [
        Surroundings({name: str(value) or "-" for name, value in json.loads(text).items()}, count)
        for text, count in found.items()
    ]


def _data(results: Sequence[Result]) -> list[DataFacts]:
    found: Counter[tuple[str, str, str, str]] = Counter()
    for result in results:
        if "data" in result.facts:
            data = result.facts["data"]
            options = ", ".join(f"{name}={value}" for name, value in sorted(result.cell.dataset.options.items()))
            found[data["name"], options, data["digest"], data["source"]] += 1
    digests = Counter((name, options) for name, options, _ in {key[:3] for key in found})
    return [
        DataFacts(name, options, digest, source, count, digests[name, options] > 1)
        for (name, options, digest, source), count in sorted(found.items())
    ]


def _command(invocation: Invocation) -> dict[str, str]:
    content = invocation.content
    ended = content["ended"]
    return {
        "command": content["command"],
        "preset": content["preset"],
        "started": _moment(content["started"]),
        "duration": "" if ended is None else _duration(ended - content["started"]),
        "outcome": content.get("outcome") or ("running" if invocation.is_running() else "interrupted"),
    }


def _moment(seconds: float) -> str:
    """Return seconds since 1970 as "2000-01-31 23:59 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _duration(seconds: float) -> str:
    """Return seconds as "1 h 02 min", "2 min 03 s" or "4 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
