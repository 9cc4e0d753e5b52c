"""The trends of the nights as a section of Markdown, and as one self-contained HTML page with small drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from poolbench.analysis.history import Night, Trend
from poolbench.analysis.text import metric_label, rounded
from poolbench_tracking.report import markdown_text, plain_word, templates

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "\u00a0"
WIDTH, HEIGHT, PAD = 300, 60, 6
"""Size of a drawing and the room around its lines, in units of the SVG."""


def by_importance(trends: Sequence[Trend]) -> tuple[list[Trend], list[Trend]]:
    """Return the trends that somebody should look at and the others, most important first.

    To look at: groups that are still regressed, then steps of the metric's tolerance or more; each by how many
    tolerances it is worse. Among hundreds of trends, noise alone shows some steps, but small ones.
    """
    ordered = sorted(trends, key=lambda trend: (trend.first_bad is None, -_tolerances_worse(trend)))
    important = [trend for trend in ordered if trend.first_bad or abs(_tolerances_worse(trend)) >= 1]
    return important, [trend for trend in ordered if trend not in important]


def _tolerances_worse(trend: Trend) -> float:
    """Return how many tolerances the step is worse, 0 without a step."""
    if trend.step is None:
        return 0.0
    worse = trend.step.before - trend.step.after
    return (worse if trend.metric.higher_is_better else -worse) / (trend.metric.tolerance or abs(worse))


def to_markdown(trends: Sequence[Trend]) -> str:
    """Return a section: the number of nights, a table of the trends that matter, the others folded away."""
    if not trends:
        return "## History\n\nThere are no nights yet.\n"
    important, others = by_importance(trends)
    lines = ["## History", "", headline(trends), ""]
    if important:
        lines += _table(important)
    if others:
        lines += ["<details>", f"<summary>{_count(len(others), 'trend')} without a change that matters</summary>", ""]
        lines += [*_table(others), "</details>"]
    return "\n".join(lines).rstrip("\n") + "\n"


def headline(trends: Sequence[Trend]) -> str:
    """Return one sentence: which nights, how many groups are regressed and how many trends have a step that matters."""
    nights = trends[0].nights
    bad = len({(trend.benchmark, trend.group) for trend in trends if trend.first_bad})
    steps = sum(abs(_tolerances_worse(trend)) >= 1 for trend in trends)
    found = f"{_count(bad, 'group')} regressed, {_count(steps, 'trend')} with a step of the tolerance or more"
    return f"{_count(len(nights), 'night')}, {_day(nights[0])} to {_day(nights[-1])}: {found}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(trends: Sequence[Trend]) -> list[str]:
    rows = [
        [
            markdown_text(trend.benchmark),
            markdown_text(trend.label or trend.group),
            markdown_text(metric_label(trend.metric)),
            f"`{sparkline(trend.values)}`",
            last_text(trend),
            band_text(trend),
            step_text(trend),
            commits_text(trend, "`"),
        ]
        for trend in trends
    ]
    heads = ["benchmark", "cell group", "metric", "nights", "last", "band", "step", "regressed"]
    return [*(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]), ""]


def sparkline(values: Sequence[float]) -> str:
    """Return a block per value, the lowest for the least; equal values are in the middle, absent ones are gaps."""
    known = [value for value in values if isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    top = len(BLOCKS) - 1
    return "".join(
        GAP if not isfinite(value)
        else BLOCKS[round((value - low) / (high - low) * top) if high > low else top // 2]
        for value in values
    )  # fmt: skip


def last_text(trend: Trend) -> str:
    """Return the latest value, "-" if there is none."""
    known = [value for value in trend.values if isfinite(value)]
    return rounded(known[-1], trend.metric) if known else "-"


def band_text(trend: Trend) -> str:
    """Return the band of the good nights as "0.83 to 0.86", "-" if there is none."""
    band = trend.band
    return "-" if band is None else f"{rounded(band.low, trend.metric)} to {rounded(band.high, trend.metric)}"


def step_text(trend: Trend) -> str:
    """Return "from night 2026-11-20: 0.85 -> 0.81", "-" without a step."""
    step = trend.step
    if step is None:
        return "-"
    levels = f"{rounded(step.before, trend.metric)} -> {rounded(step.after, trend.metric)}"
    return f"from night {_day(trend.nights[step.index])}: {levels}"


def commits_text(trend: Trend, quote: str = "") -> str:
    """Return since which night a group is regressed, with the commits of that and of the last good night.

    "-" for a group that is not. Commits are between two ``quote``.
    """
    bad, good = trend.first_bad, trend.last_good
    if bad is None:
        return "-"
    since = f"since night {_day(bad.night)}"
    if not bad.commit:
        return since
    if good is None or not good.commit:
        return f"{since}, {quote}{_commit(bad)}{quote}, no good night before"
    if good.commit == bad.commit:
        return f"{since}, {quote}{_commit(bad)}{quote} as in the last good night: not the code"
    return f"{since}, {quote}{_commit(good)}..{_commit(bad)}{quote}"


def _day(night: str) -> str:
    return plain_word(night.partition("T")[0])


def _commit(night: Night) -> str:
    return plain_word(night.commit)[:7]


@dataclass(frozen=True)
class Drawing:
    """A trend as shapes of an SVG: the path of its values, the band's top and height, the step, the bad nights."""

    path: str
    band: tuple[float, float] | None
    step: float | None
    bad: Sequence[tuple[float, float]]
    title: str


def drawing(trend: Trend) -> Drawing:
    """Return the shapes of a trend. A bad night without a value is at the bottom edge."""
    bounds = [] if trend.band is None else [trend.band.low, trend.band.high]
    known = [value for value in (*trend.values, *bounds) if isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def x(index: float) -> float:
        return round(PAD + (WIDTH - 2 * PAD) * (index / max(len(trend.nights) - 1, 1)), 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - PAD - (HEIGHT - 2 * PAD) * share, 1)

    path, drawn = "", False
    for index, value in enumerate(trend.values):
        if isfinite(value):
            # A line of length 0 makes a night between two gaps a dot.
            path += f"L{x(index)} {y(value)}" if drawn else f"M{x(index)} {y(value)}h0"
        drawn = isfinite(value)
    bad = [
        (x(index), y(value) if isfinite(value) else HEIGHT - PAD)
        for index, (night, value) in enumerate(zip(trend.nights, trend.values, strict=True))
        if night in trend.bad
    ]
    band = None
    if trend.band is not None:
        upper, lower = y(trend.band.high), y(trend.band.low)
        # A band without width is still a line.
        band = upper, max(1.0, round(lower - upper, 1))
    step = None if trend.step is None else x(trend.step.index - 0.5)
    return Drawing(path, band, step, bad, _title(trend))


def _title(trend: Trend) -> str:
    """Return the drawing in words."""
    parts = [f"{trend.metric.title} over {_count(len(trend.nights), 'night')}: last {last_text(trend)}"]
    parts += [] if trend.band is None else [f"band {band_text(trend)}"]
    parts += [] if trend.step is None else [f"step {step_text(trend)}"]
    parts += [f"regressed in {', '.join(_day(night) for night in sorted(trend.bad))}"] if trend.bad else []
    return "; ".join(parts)


def to_html(trends: Sequence[Trend]) -> str:
    """Return the page: a card per trend with its drawing, those that matter first, the others folded away."""
    important, others = by_importance(trends)
    functions = (drawing, metric_label, last_text, band_text, step_text, commits_text)
    page = templates(autoescape=True).get_template("history.html.j2")
    return page.render(
        headline=headline(trends) if trends else "There are no nights yet.",
        important=important,
        others=others,
        width=WIDTH,
        height=HEIGHT,
        **{function.__name__: function for function in functions},
    )
