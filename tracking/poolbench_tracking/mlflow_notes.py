"""Descriptions in MLflow: of an experiment, and of a group beside its rivals."""

from __future__ import annotations

from poolbench.analysis.choices import Candidate, Weighing
from poolbench.analysis.text import metric_label
from poolbench.runner.evidence import Evidence
from poolbench.task import Benchmark
from poolbench_tracking.findings import Findings, findings_of
from poolbench_tracking.report import markdown_text

LONGEST_NOTE = 7900  # characters; MLflow cuts at 8,000
HOW_TO_READ = (
    "A run is a comparison group: the networks that differ only by seed. Its metrics are means over those that have "
    "learned; `half_width/...` is the longer side of the 95 % interval, which also covers another choice of test "
    "images where the values of single images are stored; `low/...` and `high/...` are the ends of the interval of a "
    "geometric mean. `n` counts the networks that have learned, `learned` is their share. Its child runs are the seeds."
)


def experiment_note(benchmark: Benchmark) -> str:
    """Return the description of a task's experiment: question, protocol, how to read the runs."""
    return f"**{markdown_text(benchmark.question)}**\n\n{markdown_text(benchmark.protocol)}\n\n{HOW_TO_READ}"


def group_notes(found: Evidence) -> dict[str, str]:
    """Return {group: its description}: its place in each choice, and the rulings that rest on it."""
    notes: dict[str, list[str]] = {}
    for findings in findings_of(found):
        for weighing in findings.weighings:
            for one in weighing.candidates:
                notes.setdefault(one.group.id, []).append(_place(one, weighing))
        for group, line in _rulings(findings):
            notes.setdefault(group, []).append(line)
    return {group: _cut("\n\n".join(lines)) for group, lines in notes.items()}


def _cut(note: str) -> str:
    """Return a description up to the last line that MLflow keeps as a whole."""
    return note if len(note) <= LONGEST_NOTE else note[:LONGEST_NOTE].rpartition("\n")[0] + "\n\n..."


def _place(one: Candidate, weighing: Weighing) -> str:
    places = [
        f"{metric_label(metric)} {score.text}"
        + (f" (#{score.rank} of {len(weighing.candidates)})" if score.rank else "")
        for metric, score in zip(weighing.metrics, one.scores, strict=True)
    ]
    front = f"dominated by {one.dominated_by}" if one.dominated_by else "on the Pareto front"
    rivals = "\n".join(f"- {markdown_text(sentence)}" for sentence in weighing.sentences)
    return f"**{markdown_text(one.name)}**: {markdown_text('; '.join([*places, front]))}.\n\n{rivals}"


def _rulings(findings: Findings) -> list[tuple[str, str]]:
    """Return (group, line) for each ruling and each group that its claim compares."""
    found = []
    for ruling in findings.rulings:
        claim = ruling.verdict.claim
        sentence, source, effect = map(
            markdown_text, (claim.sentence, claim.source, f"{ruling.metric} {ruling.effect}")
        )
        line = f"*{sentence}* ({source}): **{ruling.verdict.ruling}**, {effect}."
        found += [(group, line) for group in ruling.groups]
    return found
