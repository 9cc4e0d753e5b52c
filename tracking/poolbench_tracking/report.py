"""The report: one self-contained HTML page, its answers, rulings and tables as Markdown, and the numbers as CSV."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from poolbench.analysis.frames import results_frame
from poolbench.analysis.text import metric_label
from poolbench.files import storage, text_bytes, write_atomically
from poolbench.runner.evidence import Evidence, read_evidence
from poolbench.runner.ledger import Ledger
from poolbench.tune.record import records
from poolbench_tracking.effect_picture import HEIGHT, WIDTH
from poolbench_tracking.links import Links
from poolbench_tracking.overview import overview
from poolbench_tracking.provenance import provenance
from poolbench_tracking.sections import NO_LINKS, Drawing, Section, sections_of, summary_frame
from poolbench_tracking.tuning_section import tuning_sections

LIVE = "live.html"
"""The live page (see ``live_page``), which the report links to if it lies beside it."""
SHOWN_FIGURES = 3
"""Figures of a benchmark that are shown at full size; the others are folded."""


def write_report(ledger: Ledger, folder: Path, links: Links = NO_LINKS) -> Path:
    """Write report.html, report.md, results.csv, summary.csv and figures/*.png into ``folder``; return the HTML's path.

    Raises StorageError if the folder cannot be written.
    """
    found = read_evidence(ledger)
    left_out = list(found.left_out)
    studies = records(ledger.folder, left_out.append)
    left_out += [f"study {study.id} left out: {study.unregistered}" for study in studies if study.unregistered]
    pictures: dict[str, bytes] = {}
    sections = [_with_drawings(section, found, pictures) for section in sections_of(found, links)]
    facts = {
        "sections": sections,
        "overview": overview(sections),
        "tunings": list(tuning_sections(studies, found)),
        "metric_label": metric_label,
        "live": LIVE if (folder / LIVE).exists() else "",
        **provenance(found.results, ledger.invocations(), left_out),
    }
    markdown, page = templates(finalize=markdown_text), templates(autoescape=True)
    sizes = {"width": WIDTH, "height": HEIGHT, "shown_figures": SHOWN_FIGURES}
    files = {
        "results.csv": results_frame(found.results).to_csv(index=False),
        "summary.csv": summary_frame(sections, found.images).to_csv(index=False),
        "report.md": markdown.get_template("report.md.j2").render(**facts),
        "report.html": page.get_template("report.html.j2").render(**sizes, **facts),
    }
    with storage(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in ({name: text_bytes(text) for name, text in files.items()} | pictures).items():
            write_atomically(folder / name, content)
    return folder / "report.html"


def _with_drawings(section: Section, found: Evidence, pictures: dict[str, bytes]) -> Section:
    """Return the section with its figures; add them to ``pictures`` as {path: PNG}."""
    from poolbench.plots.style import to_png, to_svg
    from poolbench_tracking.figures import front_figures, summary_figures, too_many_groups

    errors: dict[str, Exception] = {}
    figures = summary_figures(section.benchmark, section.results, found.record, errors.__setitem__)
    drawings = []
    for figure in section.benchmark.figures:
        svg = Markup()
        # A figure that fails, such as one of a plugin, costs itself and not the report.
        try:
            if figure.name in figures:
                svg = Markup(to_svg(figures[figure.name]))
                pictures[f"figures/{section.anchor}-{figure.name}.png"] = to_png(figures[figure.name])
        except Exception as error:
            errors[figure.name] = error
        if figure.name in figures or figure.name in errors:
            failure = errors.get(figure.name)
            reason = "" if failure is None else f"{type(failure).__name__}: {failure}"
            drawings.append(Drawing(figure.title, figure.caption, svg, reason))
    fronts = [Markup(to_svg(figure)) if figure else Markup() for figure in front_figures(section.weighings)]
    too_many = too_many_groups(section.results)
    return replace(section, fronts=fronts, drawings=drawings, too_many_groups=too_many)


def templates(**options: Any) -> Environment:
    """Return the environment of the templates of this package, with further options of jinja2."""
    return Environment(
        loader=PackageLoader("poolbench_tracking"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def plain_word(text: str) -> str:
    """Return a time or the hash of a commit, which have no meaning in Markdown, without characters that have one."""
    return re.sub(r"[^\w.:+-]", "", text)


def markdown_text(value: object) -> str:
    """Return a value as one line of Markdown that renders as plain text, in a table cell, too."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return text
