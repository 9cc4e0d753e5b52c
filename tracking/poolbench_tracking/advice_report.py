"""An advice as files: one offline HTML page, and all numbers as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup

from poolbench.files import storage, text_bytes, write_atomically
from poolbench.own_model.advice import Advice, Outcome
from poolbench.own_model.answers import points, with_interval
from poolbench.own_model.front import front, is_shown
from poolbench.plots.style import STYLE, to_svg
from poolbench_tracking.own_model_report import plain
from poolbench_tracking.report import templates

PAGE, NUMBERS = "advice.html", "advice.json"


def write_advice(found: Advice, folder: Path) -> Path:
    """Write advice.html and advice.json into a folder; return the path of the page.

    Raises StorageError if the folder cannot be written.
    """
    content = {
        NUMBERS: json.dumps(numbers(found), indent=1, allow_nan=False).encode(),
        PAGE: text_bytes(to_html(found)),
    }
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            write_atomically(folder / name, data)
    return folder / PAGE


def numbers(found: Advice) -> dict[str, Any]:
    """Return the advice as JSON types; the tables of the trials are files of their own."""
    return {
        "recommendation": None if found.chosen is None else found.chosen.name,
        "sentences": list(found.sentences),
        "model": plain(found.model),
        "data": plain(found.data),
        "judged_images": found.judged_images,
        "trained_images": found.trained_images,
        "epochs": found.epochs,
        "outcomes": [_outcome(one) for one in found.outcomes],
        "not_tried": dict(found.not_tried),
        "seconds": found.seconds,
    }


def _outcome(one: Outcome) -> dict[str, Any]:
    found = {name: plain(getattr(one, name)) for name in ("flips", "right", "flips_change", "right_change", "slowdown")}
    trial = one.trial
    own = {
        "name": one.name,
        "dominated_by": one.dominated_by,
        "seeds": len(trial.tables),
        "time": plain(trial.time),
    }
    return {**own, **found, "remedy": asdict(trial.remedy), "changed": list(trial.changed)}


def to_html(found: Advice) -> str:
    """Return the page: the recommendation, the front, the table of remedies, and what surgery did."""
    with matplotlib.rc_context(STYLE):
        svg = Markup(to_svg(front(found)))
    return (
        templates(autoescape=True)
        .get_template("advice.html.j2")
        .render(
            found=found,
            front=svg,
            hidden=sum(not is_shown(one, found) for one in found.outcomes),
            with_interval=with_interval,
            points=points,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
