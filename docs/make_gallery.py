"""Draw every figure of the suite from the results of a real run, and write docs/gallery.md, which shows them.

    python docs/make_gallery.py --work FOLDER --out docs/figures

FOLDER is a work folder of ``poolbench run all``. The pictures go to ``--out``, the page beside that folder. A figure
without data is named on the page and on stderr. Data sets whose images may not be passed on are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure as Canvas
from PIL import Image

from poolbench import registry
from poolbench.analysis.groups import has_learned
from poolbench.core import DataLocation, Result, UsageError
from poolbench.files import write_atomically
from poolbench.inspect.cell_subject import load_cell
from poolbench.inspect.filters import FILTERS
from poolbench.inspect.inspection import inspect_model
from poolbench.inspect.photograph import read_photograph
from poolbench.inspect.pool_figures import PICTURES
from poolbench.inspect.pools import inspect_pools
from poolbench.plots.style import to_png
from poolbench.runner.evidence import Evidence, read_evidence
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.task import Benchmark
from poolbench_tracking.figures import cell_figures, front_figures, summary_figures
from poolbench_tracking.report import markdown_text
from poolbench_tracking.sections import Section, sections_of

FREE = ("shapes", "colour_shapes", "mnist_sample", "fashion_mnist_sample", "tops_sample")
"""Data sets that are drawn or part of the package: only their results are shown."""
POOLS = ("max", "max_blur3", "max_blur5", "max_aps", "avg", "ideal_lowpass", "decimate", "dense")
INSPECTED, INSPECTED_IMAGE, LIMIT = "global_pooling", 0, 1000
"""Task and test image of ``inspect model``, and how many test images it measures at most."""
SIZE = 96  # px, of the photograph: its pixels are visible in a small picture
DPI, QUALITY, COLOURS = 90, 85, 256


@dataclass(frozen=True)
class Shown:
    """A picture of the page: its file, its title, the caption, and its content; None if there is no data for it."""

    file: str
    name: str
    title: str
    caption: str
    content: bytes | None


def webp(figure: Canvas) -> bytes:
    """Return a figure as WebP, which takes a third of the bytes of a PNG."""
    content = BytesIO()
    with Image.open(BytesIO(to_png(figure, DPI))) as image:
        image.convert("RGB").save(content, "WEBP", quality=QUALITY, method=6)
    return content.getvalue()


def small_png(figure: Canvas) -> bytes:
    """Return a figure as PNG with few colours."""
    content = BytesIO()
    with Image.open(BytesIO(to_png(figure, DPI))) as image:
        image.convert("RGB").quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def evidence(work: Path) -> Evidence:
    """Return the results of a work folder on the free data sets; raise UsageError for a folder without any."""
    if not (work / "cells").is_dir():
        raise UsageError(f"'{work}' is not a work folder; give the --out of 'poolbench run all'")
    found = read_evidence(Ledger(work))
    results = [result for result in found.results if result.cell.dataset.name in FREE]
    if not any(result.status == "finished" for result in results):
        raise UsageError(f"'{work}' has no finished cells; let 'poolbench run all --out {work}' end first")
    return replace(found, results=results)


def task_pictures(benchmark: Benchmark, section: Section | None, found: Evidence) -> Iterator[Shown]:
    """Yield the pictures of one task: each figure over all cells and of one cell, then the picture of each choice."""
    results = [] if section is None else section.results
    drawn = summary_figures(benchmark, results, found.record)
    for figure in benchmark.figures:
        content = webp(drawn[figure.name]) if figure.name in drawn else None
        single = _of_one_cell(benchmark, figure.name, results, found)
        if figure.draw_summary is not None:
            yield Shown(f"{benchmark.name}-{figure.name}", figure.name, figure.title, figure.caption, content)
        if figure.draw_cell is not None:
            label, picture = single or ("", None)
            caption = (
                f"One cell: {label}." if figure.draw_summary is not None else f"{figure.caption} One cell: {label}."
            )
            title = f"{figure.title}, one cell" if figure.draw_summary is not None else figure.title
            yield Shown(f"{benchmark.name}-{figure.name}-cell", figure.name, title, caption, picture)
    weighings = [] if section is None else section.weighings
    for index, (weighing, front) in enumerate(zip(weighings, front_figures(weighings), strict=True), start=1):
        if front is not None:
            sentences = " ".join(weighing.sentences)
            title = f"Which {weighing.choice.field} to take" + (f" ({weighing.setting})" if weighing.setting else "")
            yield Shown(f"{benchmark.name}-front-{index}", "answer", title, sentences, webp(front))


def _of_one_cell(
    benchmark: Benchmark, name: str, results: Sequence[Result], found: Evidence
) -> tuple[str, bytes] | None:
    """Return the label of a cell and its figure of that name: of the last cell that has learned and has the data."""
    figures = tuple(figure for figure in benchmark.figures if figure.name == name)
    alone = replace(benchmark, figures=figures)
    # The last of a grid is its largest network, or the one trained longest.
    latest_first = results[::-1]
    for result in sorted(latest_first, key=lambda one: not has_learned(one)):
        picture = cell_figures(alone, result, found.record(result.cell.id), most=1).get(name)
        if picture is not None:
            return result.cell.label, webp(picture)
    return None


def pool_pictures() -> Iterator[Shown]:
    """Yield the pictures of ``inspect pools`` for a few pools."""
    chosen = [registry.pools.resolve(name) for name in POOLS]
    found = inspect_pools(read_photograph(None, SIZE), chosen, FILTERS[0], lambda done, total: None)
    for picture in PICTURES:
        content = small_png(picture.draw(found))
        yield Shown(f"inspect-pools-{picture.name}", picture.name, picture.title, picture.caption, content)


def model_pictures(found: Evidence) -> Iterator[Shown]:
    """Yield the pictures of ``inspect model`` of one test image, for the last cell of a task with class maps."""
    of_task = [one for one in found.results if one.cell.benchmark == INSPECTED and one.cell.head.name == "avg"]
    suited = [one for one in of_task if has_learned(one)]
    for result in suited[-1:]:
        record = found.record(result.cell.id)
        subject = load_cell(result.cell, record, [INSPECTED_IMAGE], LIMIT, DataLocation(""), "cpu")
        for picture in inspect_model(subject, lambda done, total: None).pictures:
            name = picture.name.removesuffix(".png")
            with Image.open(BytesIO(picture.png)) as image:
                content = BytesIO()
                image.convert("RGB").save(content, "WEBP", quality=QUALITY, method=6)
            yield Shown(f"inspect-model-{name}", name, picture.section, picture.caption, content.getvalue())


def page(sections: Sequence[tuple[str, str, str, Sequence[Shown]]], folder: str) -> str:
    """Return the Markdown of the page; sections are (heading, introduction, command, pictures)."""
    lines = [
        "# Gallery",
        "",
        "What the suite draws, and the command for each. The pictures come from one run of the `quick` preset on the",
        "embedded and drawn data. They show what a figure looks like and are no result to cite:",
        "[lab/results.md](lab/results.md) has results. Pages that cannot be shown here: [live.html](live.html), the",
        "[MLflow UI](mlflow.md), and what `evaluate` and `advise` draw ([own-model.md](own-model.md)).",
        "",
        "```bash",
        "poolbench run all --out work",
        "python docs/make_gallery.py --work work --out docs/figures",
        "```",
    ]
    for heading, introduction, command, pictures in sections:
        lines += ["", f"## {heading}", "", introduction, "", "```bash", command, "```"]
        for one in pictures:
            lines += ["", f"### {one.name}: {markdown_text(one.title)}", ""]
            lines += [f"![{markdown_text(one.title)}]({folder}/{one.file})", ""] if one.content is not None else []
            lines += [markdown_text(one.caption) if one.content is not None else "There was no data for this figure."]
    return "\n".join(lines) + "\n"


def named(pictures: Iterator[Shown], suffix: str) -> list[Shown]:
    """Return the pictures with the endings of their files; say on stderr which have no data."""
    found = [replace(one, file=f"{one.file}{suffix}") for one in pictures]
    for one in found:
        if one.content is None:
            print(f"no data for {one.file}", file=sys.stderr)
    return found


def make_gallery(work: Path, out: Path) -> Path:
    """Write all pictures into ``out`` and the page beside it; return the page. Older pictures of the same kinds go."""
    found = evidence(work)
    by_name: dict[str, Section] = {}
    for section in sections_of(found):
        by_name.setdefault(section.benchmark.name, section)
    sections = []
    for name in registry.benchmarks.names():
        benchmark: Benchmark = registry.benchmarks.get(name)()
        own = by_name.get(name)
        count = 0 if own is None else len(own.results)
        planned = len(plan(Selection((name,))))
        introduction = f"{benchmark.question} {count} networks are shown; the preset has {planned}."
        pictures = named(task_pictures(benchmark, own, found), ".webp")
        sections.append((name, introduction, f"poolbench run {name} --out work", pictures))
    command = f"poolbench inspect pools --size {SIZE} --pool {','.join(POOLS)} --out pools"
    introduction = "What pools make of a photograph ([inspect.md](inspect.md))."
    sections.append(("inspect pools", introduction, command, named(pool_pictures(), ".png")))
    command = f"poolbench inspect model CELL --image {INSPECTED_IMAGE} --work work --out seen"
    introduction = f"What a network of {INSPECTED} makes of one test image ([inspect-model.md](inspect-model.md))."
    sections.append(("inspect model", introduction, command, named(model_pictures(found), ".webp")))
    out.mkdir(parents=True, exist_ok=True)
    shown = [one for *_, pictures in sections for one in pictures if one.content is not None]
    for stale in {*out.glob("*.webp"), *out.glob("inspect-pools-*.png")} - {out / one.file for one in shown}:
        stale.unlink()
    for one in shown:
        assert one.content is not None
        write_atomically(out / one.file, one.content)
    target = out.parent / "gallery.md"
    write_atomically(target, page(sections, out.name).encode())
    print(f"{len(shown)} pictures, {sum(len(one.content or b'') for one in shown):,} bytes", file=sys.stderr)
    return target


def main() -> None:
    """Read the arguments, make the gallery, print the path of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="work folder of 'poolbench run all'")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures; the page goes beside it")
    given = parser.parse_args()
    try:
        print(make_gallery(given.work, given.out))
    except UsageError as error:
        print(f"make_gallery: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
