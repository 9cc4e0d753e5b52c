"""The report: one HTML page that needs nothing else, the same tables as Markdown, and the numbers as CSV."""

from __future__ import annotations

import html
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from poolbench.analysis.claims import Verdict, judge
from poolbench.analysis.groups import (
    AXES,
    Group,
    groups_of,
    metric_label,
    number_text,
    protocol_of,
    results_frame,
    rounded,
    varying_fields,
)
from poolbench.analysis.statistics import holm, paired_difference, t_interval
from poolbench.core import COST_METRICS, Metric, Result
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Invocation, Ledger, storage, write_atomically
from poolbench.task import Benchmark

ALPHA = 0.05
SHOWN_COSTS = {"cost_parameters": "parameters", "cost_forward_ms": "forward / ms"}


@dataclass(frozen=True)
class Entry:
    """One number of a table; ``best`` where it beats every other group of its table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One group of a table."""

    fields: Sequence[str]
    entries: Sequence[Entry]
    n: int
    unlearned: int


@dataclass(frozen=True)
class Table:
    """Groups that compare with each other: same data set, variant and protocol."""

    caption: str
    fields: Sequence[str]
    metrics: Sequence[str]
    rows: Sequence[Row]

    @property
    def has_best(self) -> bool:
        return any(entry.best for row in self.rows for entry in row.entries)


@dataclass(frozen=True)
class Ruling:
    """A verdict with its numbers as text."""

    verdict: Verdict
    metric: str
    effect: str


@dataclass(frozen=True)
class Drawing:
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Run:
    """A finished cell in the list of runs; ``url`` is "" where its link is only a name or absent."""

    label: str
    value: str
    learned: bool
    url: str
    name: str


@dataclass(frozen=True)
class Section:
    """A benchmark's results under one protocol."""

    benchmark: Benchmark
    protocol: str
    results: Sequence[Result]
    rulings: Sequence[Ruling]
    tables: Sequence[Table]
    runs: Sequence[Run]
    drawings: Sequence[Drawing] = ()

    @property
    def anchor(self) -> str:
        return f"{self.benchmark.name}-{self.protocol}".replace(" ", "-")

    @property
    def heading(self) -> str:
        return f"{self.benchmark.title} ({self.protocol})"

    @property
    def rulings_count(self) -> Mapping[str, int]:
        return Counter(ruling.verdict.ruling for ruling in self.rulings)


def write_report(ledger: Ledger, folder: Path, run_links: Mapping[str, str] | None = None) -> Path:
    """Write report.html, report.md, results.csv and summary.csv into ``folder``; return the HTML's path.

    ``run_links`` maps cell ids to the address, or failing that the name, of their MLflow runs. Raises
    StorageError where the folder cannot be written.
    """
    results = ledger.results()
    sections = list(_sections(results, run_links or {}))
    drawn = [_with_drawings(section, ledger) for section in sections]
    facts = _facts(ledger, results)
    markdown, page = _templates(finalize=markdown_text), _templates(autoescape=True)
    files = {
        "results.csv": results_frame(results).to_csv(index=False),
        "summary.csv": summary_frame(sections).to_csv(index=False),
        "report.md": markdown.get_template("report.md.j2").render(sections=sections, **facts),
        "report.html": page.get_template("report.html.j2").render(sections=drawn, **facts),
    }
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content.encode())
    return folder / "report.html"


def comparison_tables(benchmark: Benchmark, results: Sequence[Result]) -> list[Table]:
    """Return the tables of headline metrics, one per data set and variant: what lies in two does not compare."""
    tables: dict[tuple[str, str], list[Group]] = {}
    for group in groups_of(results):
        tables.setdefault((str(group.fields["dataset"]), str(group.fields["variant"])), []).append(group)
    names = [name for name in varying_fields(results_frame(results)) if name not in ("dataset", "variant")] or ["pool"]
    return [_table(benchmark, groups, names) for groups in tables.values()]


def best_group(groups: Sequence[Group], metric: Metric) -> str | None:
    """Return the id of the group that beats every other one in a metric, None where noise could tell why.

    Groups in which a network has not learned stay out. The best mean wins if the paired t test on
    common seeds sets it apart from each other group, after Holm's correction for their number.
    """
    values = {group.id: group.values(metric.name) for group in groups if not group.unlearned}
    values = {name: own for name, own in values.items() if own}
    if metric.higher_is_better is None or len(values) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1
    best = max(values, key=lambda name: sign * t_interval(list(values[name].values())).mean)
    p_values = []
    for name in values.keys() - {best}:
        seeds = sorted(values[best].keys() & values[name].keys())
        if len(seeds) < 2:
            return None
        difference = paired_difference([values[best][s] for s in seeds], [values[name][s] for s in seeds])
        if sign * difference.interval.mean <= 0:
            return None
        p_values.append(difference.p)
    return best if max(holm(p_values)) <= ALPHA else None


def summary_frame(sections: Sequence[Section]) -> pd.DataFrame:
    """Return one row per group and metric: fields, mean, 95 % interval, number and share of learned networks."""
    rows = []
    for section in sections:
        for group in groups_of(section.results):
            for metric in (*section.benchmark.metrics, *COST_METRICS):
                values = list(group.values(metric.name).values())
                if not values:
                    continue
                interval = t_interval(values)
                rows.append(
                    {
                        "benchmark": section.benchmark.name,
                        "protocol": section.protocol,
                        **group.fields,
                        "group": group.id,
                        "metric": metric.name,
                        "mean": interval.mean,
                        "low": interval.low,
                        "high": interval.high,
                        "n": interval.n,
                        "learned": 1 - group.unlearned / len(group.results),
                    }
                )
    # As objects, integers beside gaps stay integers.
    return pd.DataFrame(rows, dtype=object)


def _sections(results: Sequence[Result], run_links: Mapping[str, str]) -> Iterator[Section]:
    known = {name: benchmarks.get(name)() for name in benchmarks.names()}
    members: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        name = result.cell.benchmark
        if name in known:
            members.setdefault((name, protocol_of(result.cell, known[name])), []).append(result)
    for (name, protocol), own in members.items():
        frame = results_frame(own)
        rulings = [_ruling(judge(claim, known[name], frame), known[name]) for claim in known[name].claims]
        runs = [_run(result, run_links) for group in groups_of(own) for result in group.results]
        tables = comparison_tables(known[name], own)
        yield Section(known[name], protocol, own, rulings if tables else (), tables, runs)


def _with_drawings(section: Section, ledger: Ledger) -> Section:
    from poolbench.plots.style import to_svg
    from poolbench_tracking.figures import summary_figures

    figures = summary_figures(section.benchmark, section.results, ledger)
    drawings = [
        Drawing(figure.title, figure.caption, Markup(to_svg(figures[figure.name])))
        for figure in section.benchmark.figures
        if figure.name in figures
    ]
    return replace(section, drawings=drawings)


def _table(benchmark: Benchmark, groups: Sequence[Group], names: Sequence[str]) -> Table:
    names = [name for name in names if any(name in group.fields for group in groups)]
    metrics = [m for m in benchmark.metrics if m.headline and any(group.values(m.name) for group in groups)]
    best = {metric.name: best_group(groups, metric) for metric in metrics}
    costs = {name: title for name, title in SHOWN_COSTS.items() if any(group.values(name) for group in groups)}
    rows = [
        Row(
            [_field(group, name) for name in names],
            [
                *(Entry(number_text(group, metric), best[metric.name] == group.id) for metric in metrics),
                *(Entry(_cost(group, name), False) for name in costs),
            ],
            len(group.results),
            group.unlearned,
        )
        for group in groups
    ]
    shared = [name for name in AXES if name not in names and len({group.fields[name] for group in groups}) == 1]
    constant = [name for name in shared if groups[0].fields[name] not in ("none", "default")]
    caption = ", ".join(f"{name} {groups[0].fields[name]}" for name in constant)
    return Table(caption, names, [*(metric_label(metric) for metric in metrics), *costs.values()], rows)


def _cost(group: Group, name: str) -> str:
    """The group's cost as text: a count whole, a time with two decimals, no interval (it is the machine's)."""
    values = list(group.values(name).values())
    if not values:
        return "-"
    return f"{fmean(values):,.0f}" if name == "cost_parameters" else f"{fmean(values):.2f}"


def _field(group: Group, name: str) -> str:
    return str(group.fields.get(name, "-"))


def _ruling(verdict: Verdict, benchmark: Benchmark) -> Ruling:
    metric = benchmark.metric(verdict.claim.metric)
    if verdict.effect is None:
        return Ruling(verdict, metric_label(metric), "-")
    mean, low, high = (rounded(x, metric, "+") for x in (verdict.effect.mean, verdict.effect.low, verdict.effect.high))
    return Ruling(verdict, metric_label(metric), f"{mean} [{low}, {high}], n = {verdict.effect.n}")


def _run(result: Result, links: Mapping[str, str]) -> Run:
    link = links.get(result.cell.id, "")
    # Only addresses become links: a name, or worse a script, does not.
    is_address = urlsplit(link).scheme in ("http", "https", "file")
    accuracy = result.metrics.get("accuracy", math.nan)
    return Run(
        result.cell.label,
        f"{accuracy:.3f}",
        bool(result.facts["learned"]),
        link if is_address else "",
        "" if is_address else link,
    )


def _facts(ledger: Ledger, results: Sequence[Result]) -> dict[str, Any]:
    """Return what both templates say beside the sections."""
    statuses = Counter(result.status for result in results)
    seconds = sum(r.ended - r.started for r in results if r.ended is not None and r.started is not None)
    unknown = Counter(r.cell.benchmark for r in results if r.cell.benchmark not in benchmarks.names())
    return {
        "written": _moment(time.time()),
        "total": len(results),
        "statuses": statuses,
        "unlearned": sum(not r.facts["learned"] for r in results if r.status == "finished"),
        "duration": _duration(seconds),
        "unknown": unknown,
        "failed": [result for result in results if result.status == "failed"],
        "skipped": [result for result in results if result.status == "skipped"],
        "unfinished": [result for result in results if result.status in ("pending", "running")],
        "environments": _environments(results),
        "data": _data(results),
        "invocations": [_invocation(invocation) for invocation in ledger.invocations()],
    }


@dataclass(frozen=True)
class Surroundings:
    """An environment and the number of cells that ran in it."""

    values: Mapping[str, str]
    cells: int


def _environments(results: Sequence[Result]) -> list[Surroundings]:
    found = Counter(json.dumps(r.facts["environment"], sort_keys=False) for r in results if "environment" in r.facts)
    return [
        Surroundings({name: str(value) or "-" for name, value in json.loads(text).items()}, count)
        for text, count in found.items()
    ]


@dataclass(frozen=True)
class DataFacts:
    """A data set as it was found; ``is_ambiguous`` where equal options gave several digests."""

    name: str
    options: str
    digest: str
    source: str
    cells: int
    is_ambiguous: bool


def _data(results: Sequence[Result]) -> list[DataFacts]:
    found: Counter[tuple[str, str, str, str]] = Counter()
    for result in results:
        if "data" in result.facts:
            data = result.facts["data"]
            options = ", ".join(f"{name}={value}" for name, value in sorted(result.cell.data.items()))
            found[data["name"], options, data["digest"], data["source"]] += 1
    digests = Counter((name, options) for name, options, _ in {key[:3] for key in found})
    return [
        DataFacts(name, options, digest, source, count, digests[name, options] > 1)
        for (name, options, digest, source), count in sorted(found.items())
    ]


def _invocation(invocation: Invocation) -> dict[str, str]:
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
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _templates(**options: Any) -> Environment:
    return Environment(
        loader=PackageLoader("poolbench_tracking"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def markdown_text(value: object) -> str:
    """Return a value as Markdown that shows it as it is, within a line and within a table's cell."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return text
