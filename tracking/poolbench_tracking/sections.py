"""Sections of the report: the results of one benchmark under one protocol, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import pandas as pd
from markupsafe import Markup

from poolbench.analysis.claims import Verdict, judge
from poolbench.analysis.frames import results_frame, summary_rows
from poolbench.analysis.groups import groups_of, has_learned
from poolbench.analysis.images import ImageValues
from poolbench.analysis.reach import NOT_A_TEST
from poolbench.analysis.tables import Table, comparison_tables
from poolbench.analysis.text import effect_text, metric_label
from poolbench.claim import Claim
from poolbench.core import COST_METRICS, Metric, Result
from poolbench.registry import benchmarks
from poolbench.task import Benchmark
from poolbench_tracking.effect_picture import Picture, picture
from poolbench_tracking.protocols import protocol_of


@dataclass(frozen=True)
class Ruling:
    """A verdict with its metric, and its effect as text and as a picture."""

    verdict: Verdict
    metric: str
    effect: str
    picture: Picture | None


@dataclass(frozen=True)
class Drawing:
    """A figure of the report; ``error`` says why it has no ``svg``."""

    title: str
    caption: str
    svg: Markup
    error: str = ""


@dataclass(frozen=True)
class Run:
    """A finished cell in the list of runs: either ``url`` is set, or ``name`` (a link that is no address), or none."""

    label: str
    value: str
    learned: bool
    url: str
    name: str


@dataclass(frozen=True)
class Section:
    """The results of one benchmark under one protocol. ``absent`` are claims that these networks cannot judge."""

    benchmark: Benchmark
    protocol: str
    results: Sequence[Result]
    rulings: Sequence[Ruling]
    absent: Sequence[Claim]
    tables: Sequence[Table]
    runs: Sequence[Run]
    drawings: Sequence[Drawing] = ()
    too_many_groups: bool = False

    @property
    def anchor(self) -> str:
        return f"{self.benchmark.name}-{self.protocol}".replace(" ", "-")

    @property
    def heading(self) -> str:
        return f"{self.benchmark.title} ({self.protocol})"

    @property
    def answered(self) -> Sequence[Ruling]:
        """The rulings with an effect, those of which the networks are a test first."""
        found = [ruling for ruling in self.rulings if ruling.verdict.effect is not None]
        return sorted(found, key=lambda ruling: ruling.verdict.ruling == NOT_A_TEST)


def sections_of(results: Sequence[Result], run_links: Mapping[str, str], images: ImageValues) -> Iterator[Section]:
    """Yield a section per registered benchmark and protocol, without drawings, in order of first appearance.

    ``results`` are judged (see ``learning.judged``); ``images`` has their values per image. ``run_links`` maps cell
    ids to the address, or else the name, of their MLflow runs. Results of benchmarks that are not registered are
    left out.
    """
    known = {name: benchmarks.get(name)() for name in benchmarks.names()}
    members: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        name = result.cell.benchmark
        if name in known:
            members.setdefault((name, protocol_of(result.cell, known[name])), []).append(result)
    for (name, protocol), found in members.items():
        benchmark, frame = known[name], results_frame(found)
        tables = comparison_tables(benchmark.metrics, found, images)
        rulings, absent = [], []
        for claim in benchmark.claims if tables else ():
            verdict = judge(claim, name, benchmark.metrics, frame, protocol, images)
            if verdict.networks:
                rulings.append(_ruling(verdict, benchmark.metric(claim.metric)))
            elif protocol in (claim.reach.presets or (protocol,)):
                absent.append(claim)
        runs = [_run(result, run_links) for group in groups_of(found) for result in group.results]
        yield Section(benchmark, protocol, found, rulings, absent, tables, runs)


def summary_frame(sections: Sequence[Section], images: ImageValues) -> pd.DataFrame:
    """Return one row per section, group and metric: benchmark, protocol, then the columns of ``summary_rows``."""
    rows = [
        {"benchmark": section.benchmark.name, "protocol": section.protocol, **row}
        for section in sections
        for row in summary_rows(section.results, (*section.benchmark.metrics, *COST_METRICS), images)
    ]
    # As objects, because integers in a column with gaps would become floats.
    return pd.DataFrame(rows, dtype=object)


def _ruling(verdict: Verdict, metric: Metric) -> Ruling:
    effect = "-" if verdict.effect is None else effect_text(verdict.effect, metric, verdict.is_ratio)
    return Ruling(verdict, metric_label(metric), effect, picture(verdict))


def _run(result: Result, links: Mapping[str, str]) -> Run:
    link = links.get(result.cell.id, "")
    # Only addresses become links: a name is no address, and a script must not run.
    is_address = urlsplit(link).scheme in ("http", "https", "file")
    accuracy = result.metrics.get("accuracy", math.nan)
    return Run(
        result.cell.label,
        f"{accuracy:.3f}",
        has_learned(result),
        link if is_address else "",
        "" if is_address else link,
    )
