"""The report: one self-contained HTML page, the same tables as Markdown, and the numbers as CSV."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from poolbench.analysis.frames import results_frame
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger, storage, write_atomically
from poolbench_tracking.provenance import provenance
from poolbench_tracking.sections import Drawing, Section, sections_of, summary_frame

KINDS = {
    "curves": "Mean over seeds; the band is the 95 % t interval of the mean, cut at the range of the seeds.",
    "map": "One trained network per group: the first seed that has learned. All panels share the scale.",
    "intervals": "Large: mean over seeds with its 95 % t interval; small: the seeds. Arrows: the interval goes on. "
    "Hollow and grey: not every network has learned.",
    "parts": "One trained network per group: the first seed that has learned. Each part has its own scale; the "
    "values of the phases with the colours of the phase part, a detail of which is shown.",
    "scatter": "Large: means over seeds with 95 % t intervals, cut at the range of the seeds; small: the seeds. "
    "Dashed: least squares over a panel's networks; beside it, what is left over. Hollow and grey: not every network "
    "has learned; these stay out of the line.",
    "heatmap": "Mean over seeds ± half the width of its 95 % t interval. Panels of a data set share the colours "
    "of a metric, dark for high. White and grey: not every network has learned.",
    "sensitivity": "Mean over shifts and seeds of each stage, from the input (0 %) to the output (100 %), with 95 % t "
    "bands. Motion undone: the features of the image are moved along, what is left is aliasing and the border.",
    "bars": "Mean over seeds with its 95 % t interval; pale where not every network has learned.",
    "depth": "Mean over seeds of each layer from the input (0 %) to the output (100 %), with 95 % t bands. Grey: the "
    "same networks before training.",
    "units": "One trained network per group, the first seed that has learned: every layer's units sorted. Grey: dead.",
    "classes": "Mean over the units of a layer, among the images of each class, and over seeds.",
    "angles": "Mean over seeds with 95 % t bands. Dashed: the same network averaged over four quarter turns.",
    "similarity": "Linear CKA of a layer's outputs for turned and upright images, mean over seeds; colour: depth.",
}


def write_report(ledger: Ledger, folder: Path, run_links: Mapping[str, str] | None = None) -> Path:
    """Write report.html, report.md, results.csv and summary.csv into ``folder``; return the path of the HTML.

    ``run_links`` maps cell ids to the address, or else the name, of their MLflow runs. Raises StorageError
    if the folder cannot be written.
    """
    results = ledger.results()
    sections = list(sections_of(results, run_links or {}))
    drawn = [_with_drawings(section, ledger) for section in sections]
    facts = provenance(results, ledger.invocations(), benchmarks.names())
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


def _with_drawings(section: Section, ledger: Ledger) -> Section:
    from poolbench.plots import summary_figures, to_svg

    figures = summary_figures(section.benchmark, section.results, ledger)
    drawings = [
        Drawing(spec.title, KINDS[spec.kind], Markup(to_svg(figures[spec.name])))
        for spec in section.benchmark.figures
        if spec.name in figures
    ]
    return replace(section, drawings=drawings)


def _templates(**options: Any) -> Environment:
    return Environment(
        loader=PackageLoader("poolbench_tracking"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def markdown_text(value: object) -> str:
    """Return a value as one line of Markdown that renders as plain text, in a table cell, too."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return text
