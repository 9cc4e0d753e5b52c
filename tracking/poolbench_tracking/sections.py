"""Sections of the report: the results of one benchmark under one protocol, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from urllib.parse import urlsplit

import pandas as pd
from markupsafe import Markup

from poolbench.analysis.choices import Weighing, weighings
from poolbench.analysis.claims import Verdict, comparison_of, judge
from poolbench.analysis.frames import results_frame, summary_rows
from poolbench.analysis.groups import groups_of, has_learned
from poolbench.analysis.images import ImageValues
from poolbench.analysis.reach import NOT_A_TEST
from poolbench.analysis.tables import Table, comparison_tables
from poolbench.analysis.text import effect_text, listed, metric_label
from poolbench.claim import Claim
from poolbench.core import COST_METRICS, Metric, Result
from poolbench.registry import benchmarks
from poolbench.runner.evidence import Evidence
from poolbench.task import Benchmark
from poolbench_tracking.effect_picture import Picture, picture
from poolbench_tracking.links import Links
from poolbench_tracking.protocols import protocol_of

NO_LINKS = Links()


@dataclass(frozen=True)
class Ruling:
    """A verdict with its metric, its effect as text and as a picture, and the groups that it is about, in words too."""

    verdict: Verdict
    metric: str
    effect: str
    picture: Picture | None
    groups: Set[str]
    networks: str

    @property
    def is_a_test(self) -> bool:
        """Whether these networks are a test of the claim, with seeds enough for an interval."""
        effect = self.verdict.effect
        return self.verdict.ruling != NOT_A_TEST and effect is not None and effect.is_bounded


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
    """The results of one benchmark under one protocol. ``absent`` are claims that these networks cannot judge.

    ``answers`` are sentences with the numbers in them. ``tables`` have the headline metrics, ``further_tables`` the
    others; ``fronts`` are the pictures of ``weighings``. ``views`` are links to its runs in MLflow.
    """

    benchmark: Benchmark
    protocol: str
    results: Sequence[Result]
    rulings: Sequence[Ruling]
    absent: Sequence[Claim]
    weighings: Sequence[Weighing]
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

    @property
    def ordered_rulings(self) -> Sequence[Ruling]:
        """The rulings of which the networks are a test first, those without an effect last."""
        return sorted(self.rulings, key=lambda one: (one.verdict.effect is None, one.verdict.ruling == NOT_A_TEST))


def sections_of(found: Evidence, links: Links = NO_LINKS) -> Iterator[Section]:
    """Yield a section per registered benchmark and protocol, without drawings, in order of first appearance.

    Results of benchmarks that are not registered are left out.
    """
    known = {name: benchmarks.get(name)() for name in benchmarks.names()}
    members: dict[tuple[str, str], list[Result]] = {}
    for result in found.results:
        name = result.cell.benchmark
        if name in known:
            members.setdefault((name, protocol_of(result.cell, known[name])), []).append(result)
    for (name, protocol), results in members.items():
        yield _section(known[name], protocol, results, found, links)


def _section(benchmark: Benchmark, protocol: str, results: Sequence[Result], found: Evidence, links: Links) -> Section:
    frame, metrics, images = results_frame(results), benchmark.metrics, found.images
    tables = comparison_tables(metrics, results, images)
    rulings, absent = [], []
    for claim in benchmark.claims if tables else ():
        verdict = judge(claim, benchmark.name, metrics, frame, protocol, images)
        if verdict.networks:
            compared = comparison_of(claim, benchmark.name, frame, protocol)
            groups = compared.groups if compared else frozenset()
            rulings.append(_ruling(verdict, benchmark.metric(claim.metric), groups, networks_text(frame, groups)))
        elif protocol in (claim.reach.presets or (protocol,)):
            absent.append(claim)
    weighed = [one for choice in benchmark.choices for one in weighings(choice, metrics, results, images)]
    answers = [sentence for one in weighed for sentence in one.sentences]
    runs = [_run(result, links.runs) for group in groups_of(results) for result in group.results]
    answers += _own_answers(benchmark, results, found)
    further = comparison_tables(metrics, results, images, headline=False)
    views = links.views.get(benchmark.name, {})
    return Section(benchmark, protocol, results, rulings, absent, weighed, answers, tables, further, runs, views)


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


def networks_text(frame: pd.DataFrame, groups: Set[str]) -> str:
    """Return the architectures, data sets and epochs of groups, such as "vgg_like, mnist, 3 and 6 epochs"."""
    rows = frame[frame["group"].isin(groups)]
    if rows.empty:
        return ""
    names = (listed([str(value) for value in rows[field].unique()]) for field in ("architecture", "dataset"))
    epochs = listed([str(value) for value in sorted(rows["epochs"].unique())])
    return ", ".join([*names, f"{epochs} epoch{'s' if epochs != '1' else ''}"])


def summary_frame(sections: Sequence[Section], images: ImageValues) -> pd.DataFrame:
    """Return one row per section, group and metric: benchmark, protocol, then the columns of ``summary_rows``."""
    rows = [
        {"benchmark": section.benchmark.name, "protocol": section.protocol, **row}
        for section in sections
        for row in summary_rows(section.results, (*section.benchmark.metrics, *COST_METRICS), images)
    ]
    # As objects, because integers in a column with gaps would become floats.
    return pd.DataFrame(rows, dtype=object)


def _ruling(verdict: Verdict, metric: Metric, groups: Set[str], networks: str) -> Ruling:
    effect = "-" if verdict.effect is None else effect_text(verdict.effect, metric, verdict.is_ratio)
    return Ruling(verdict, metric_label(metric), effect, picture(verdict), groups, networks)


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
