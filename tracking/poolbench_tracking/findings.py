"""What the results of one benchmark under one protocol say: rulings on claims, and which candidate to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import pandas as pd

from poolbench.analysis.choices import Weighing, weighings
from poolbench.analysis.claims import Verdict, comparison_of, judge
from poolbench.analysis.frames import results_frame
from poolbench.analysis.reach import NOT_A_TEST
from poolbench.analysis.text import effect_text, listed, metric_label
from poolbench.claim import Claim
from poolbench.core import Metric, Result
from poolbench.registry import benchmarks
from poolbench.runner.evidence import Evidence
from poolbench.task import Benchmark
from poolbench_tracking.effect_picture import Picture, picture
from poolbench_tracking.protocols import protocol_of


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
class Findings:
    """What the results of one benchmark under one protocol say.

    ``absent`` are claims that these networks cannot judge.
    """

    benchmark: Benchmark
    protocol: str
    results: Sequence[Result]
    rulings: Sequence[Ruling]
    absent: Sequence[Claim]
    weighings: Sequence[Weighing]

    @property
    def ordered_rulings(self) -> Sequence[Ruling]:
        """The rulings of which the networks are a test first, those without an effect last."""
        return sorted(self.rulings, key=lambda one: (one.verdict.effect is None, one.verdict.ruling == NOT_A_TEST))


def findings_of(found: Evidence) -> Iterator[Findings]:
    """Yield the findings per registered benchmark and protocol, in order of first appearance.

    Results of benchmarks that are not registered are left out.
    """
    known = {name: benchmarks.get(name)() for name in benchmarks.names()}
    members: dict[tuple[str, str], list[Result]] = {}
    for result in found.results:
        name = result.cell.benchmark
        if name in known:
            members.setdefault((name, protocol_of(result.cell, known[name])), []).append(result)
    for (name, protocol), results in members.items():
        yield _findings(known[name], protocol, results, found)


def _findings(benchmark: Benchmark, protocol: str, results: Sequence[Result], found: Evidence) -> Findings:
    frame, metrics, images = results_frame(results), benchmark.metrics, found.images
    rulings, absent = [], []
    for claim in () if frame.empty else benchmark.claims:
        verdict = judge(claim, benchmark.name, metrics, frame, protocol, images)
        if verdict.networks:
            compared = comparison_of(claim, benchmark.name, frame, protocol)
            groups = compared.groups if compared else frozenset()
            rulings.append(_ruling(verdict, benchmark.metric(claim.metric), groups, networks_text(frame, groups)))
        elif protocol in (claim.reach.presets or (protocol,)):
            absent.append(claim)
    weighed = [one for choice in benchmark.choices for one in weighings(choice, metrics, results, images)]
    return Findings(benchmark, protocol, results, rulings, absent, weighed)


def networks_text(frame: pd.DataFrame, groups: Set[str]) -> str:
    """Return the architectures, data sets and epochs of groups, such as "vgg_like, mnist, 3 and 6 epochs"."""
    rows = frame[frame["group"].isin(groups)]
    if rows.empty:
        return ""
    names = (listed([str(value) for value in rows[field].unique()]) for field in ("architecture", "dataset"))
    epochs = listed([str(value) for value in sorted(rows["epochs"].unique())])
    return ", ".join([*names, f"{epochs} epoch{'s' if epochs != '1' else ''}"])


def _ruling(verdict: Verdict, metric: Metric, groups: Set[str], networks: str) -> Ruling:
    effect = "-" if verdict.effect is None else effect_text(verdict.effect, metric, verdict.is_ratio)
    return Ruling(verdict, metric_label(metric), effect, picture(verdict), groups, networks)
