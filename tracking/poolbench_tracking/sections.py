"""Sections of the report: the results of one benchmark under one protocol, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import pandas as pd
from markupsafe import Markup

from poolbench.analysis.frames import summary_rows
from poolbench.analysis.groups import groups_of, has_learned
from poolbench.analysis.images import ImageValues
from poolbench.analysis.tables import Table, comparison_tables
from poolbench.core import COST_METRICS, Result
from poolbench.runner.evidence import Evidence
from poolbench.task import Benchmark
from poolbench_tracking.findings import Findings, findings_of
from poolbench_tracking.links import Links

NO_LINKS = Links()


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
class Section(Findings):
    """The findings of one benchmark under one protocol with all that the report shows beside them.

    ``answers`` are sentences with the numbers in them. ``tables`` have the headline metrics, ``further_tables`` the
    others; ``fronts`` are the pictures of ``weighings``. ``views`` are links to its runs in MLflow.
    """

    answers: Sequence[str]
    tables: Sequence[Table]
    further_tables: Sequence[Table]
    runs: Sequence[Run]
    views: Mapping[str, str]
    fronts: Sequence[Markup] = ()
    drawings: Sequence[Drawing] = ()
    too_many_groups: bool = False

    @property
    def anchor(self) -> str:
        return f"{self.benchmark.name}-{self.protocol}".replace(" ", "-")

    @property
    def heading(self) -> str:
        return f"{self.benchmark.title} ({self.protocol})"


def sections_of(found: Evidence, links: Links = NO_LINKS) -> Iterator[Section]:
    """Yield a section per registered benchmark and protocol, without drawings, in order of first appearance.

    Results of benchmarks that are not registered are left out.
    """
    for findings in findings_of(found):
        benchmark, results = findings.benchmark, findings.results
        tables, further = (
            comparison_tables(benchmark.metrics, results, found.images, headline=headline) for headline in (True, False)
        )
        answers = [sentence for one in findings.weighings for sentence in one.sentences]
        answers += _own_answers(benchmark, results, found)
        runs = [_run(result, links.runs) for group in groups_of(results) for result in group.results]
        views = {name: link for name, link in links.views.get(benchmark.name, {}).items() if is_address(link)}
        yield Section(**vars(findings), answers=answers, tables=tables, further_tables=further, runs=runs, views=views)


def _own_answers(benchmark: Benchmark, results: Sequence[Result], found: Evidence) -> list[str]:
    """Return the sentences that the task itself makes of its results."""
    if benchmark.answers is None:
        return []
    from poolbench_tracking.figures import scene_of

    # A task that fails here, such as one of a plugin, costs its sentences and not the report.
    try:
        return list(benchmark.answers(scene_of(benchmark, results, found.record)))
    except Exception as error:
        return [f"The task's own answers failed: {type(error).__name__}: {error}"]


def summary_frame(sections: Sequence[Section], images: ImageValues) -> pd.DataFrame:
    """Return one row per section, group and metric: benchmark, protocol, then the columns of ``summary_rows``."""
    rows = [
        {"benchmark": section.benchmark.name, "protocol": section.protocol, **row}
        for section in sections
        for row in summary_rows(section.results, (*section.benchmark.metrics, *COST_METRICS), images)
    ]
    # As objects, because integers in a column with gaps would become floats.
    return pd.DataFrame(rows, dtype=object)


def _run(result: Result, links: Mapping[str, str]) -> Run:
    link = links.get(result.cell.id, "")
    accuracy = result.metrics.get("accuracy", math.nan)
    return Run(
        result.cell.label,
        f"{accuracy:.3f}",
        has_learned(result),
        link if is_address(link) else "",
        "" if is_address(link) else link,
    )


def is_address(link: str) -> bool:
    """Return whether a text may become a link: a name is no address, and a script must not run."""
    return urlsplit(link).scheme in ("http", "https", "file")
