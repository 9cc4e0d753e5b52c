"""The evaluation of a user's model as files: one offline HTML page, all numbers as JSON, a row per image as Parquet."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup

from poolbench.files import storage, text_bytes, write_atomically
from poolbench.own_model.answers import answers, percent, points, warnings, with_interval
from poolbench.own_model.figures import DRAWINGS
from poolbench.own_model.results import Evaluation
from poolbench.plots.style import STYLE, to_svg
from poolbench_tracking.report import templates

PAGE, NUMBERS, IMAGES = "index.html", "evaluation.json", "images.parquet"


def make_folder(folder: Path) -> None:
    """Make the folder of the results; raise StorageError. Called before the work, so that a mistake costs no time."""
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_evaluation(found: Evaluation, folder: Path) -> Path:
    """Write index.html, evaluation.json and images.parquet into an existing folder; return the path of the page.

    Each file is whole or absent. Raises StorageError if the folder cannot be written.
    """
    table = BytesIO()
    found.images.to_parquet(table, index=False)
    content = {
        IMAGES: table.getvalue(),
        NUMBERS: json.dumps(plain(found), indent=1, allow_nan=False).encode(),
        PAGE: text_bytes(to_html(found)),
    }
    with storage(folder):
        for name, data in content.items():
            write_atomically(folder / name, data)
    return folder / PAGE


def plain(value: Any) -> Any:
    """Return a result as JSON types: tables as lists of rows, numbers that are not finite as None, no pictures.

    The table of images is left out: it is a file of its own.
    """
    if is_dataclass(value):
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            name: plain(part) for name, part in own.items()
            if not isinstance(part, bytes) and not (name == "images" and isinstance(part, pd.DataFrame))
        }  # fmt: skip
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value


def to_html(found: Evaluation) -> str:
    """Return the page: the answers, the most unstable images, tables and figures."""
    figures = {}
    with matplotlib.rc_context(STYLE):
        for drawing in DRAWINGS:
            figure = drawing.draw(found)
            if figure is not None:
                figures[drawing.name] = {"drawing": drawing, "svg": Markup(to_svg(figure))}
    page = templates(autoescape=True).get_template("own_model.html.j2")
    return page.render(
        found=found,
        answers=answers(found),
        warnings=warnings(found),
        figures=figures,
        percent=percent,
        points=points,
        with_interval=with_interval,
        data_uri=data_uri,
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def data_uri(png: bytes) -> str:
    """Return a PNG as the source of an <img> that needs no file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
