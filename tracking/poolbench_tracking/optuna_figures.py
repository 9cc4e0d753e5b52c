"""Optuna's own figures of a study, from its record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState

from poolbench.plots.style import STYLE
from poolbench.tune.design import directions
from poolbench.tune.record import StudyRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_FOR_IMPORTANCE = 4
"""Fewer trials say nothing about which hyperparameter matters."""


def as_study(record: StudyRecord) -> optuna.Study:
    """Return the trials of a record as a study in memory.

    A trial that stopped early has the mean of its first seeds. Infeasible trials are left out.
    """
    study = optuna.create_study(directions=directions(record.cell, record.design))
    distributions = {name: json_to_distribution(text) for name, text in record.distributions.items()}
    for trial in record.trials:
        if trial.state != "infeasible":
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.COMPLETE,
                    params=dict(trial.parameters),
                    distributions=distributions,
                    values=[trial.mean(name) for name in record.design.objectives],
                )
            )
    return study


def study_figures(record: StudyRecord) -> dict[str, Figure]:
    """Return {name: figure}: history, importances and slices of each objective; the Pareto front of several."""
    from optuna.visualization import matplotlib as draw

    found: dict[str, Figure] = {}
    objectives = record.design.objectives
    with _quiet():
        study = as_study(record)
        for position, name in enumerate(objectives):
            aim: dict[str, Any] = {"target_name": name}
            if not record.design.is_single:
                aim["target"] = lambda trial, position=position: trial.values[position]
            ending = "" if record.design.is_single else f"_{name}"
            found[f"history{ending}"] = _figure(draw.plot_optimization_history, study, **aim)
            found[f"slices{ending}"] = _figure(draw.plot_slice, study, **aim)
            if _differ(study, position):
                found[f"importances{ending}"] = _figure(
                    draw.plot_param_importances, study, **_importance(study, position, aim)
                )
        if 2 <= len(objectives) <= 3:
            found["pareto_front"] = _figure(draw.plot_pareto_front, study, target_names=list(objectives))
    return found


def as_png(figure: Figure) -> bytes:
    """Return one of the figures as a PNG. Its logarithmic axes have formulas as ticks, which STYLE forbids."""
    import matplotlib

    content = BytesIO()
    with matplotlib.rc_context({"text.parse_math": True}):
        figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _differ(study: optuna.Study, position: int) -> bool:
    values = {trial.values[position] for trial in study.trials}
    return len(study.trials) >= LEAST_FOR_IMPORTANCE and len(values) > 1


def _importance(study: optuna.Study, position: int, aim: dict[str, Any]) -> dict[str, Any]:
    """Return the target of the importances: Optuna explains low values of it, and of a single objective good ones."""
    if "target" not in aim:
        return aim
    higher = study.directions[position] == optuna.study.StudyDirection.MAXIMIZE
    return {**aim, "target": lambda trial: -trial.values[position] if higher else trial.values[position]}


def _figure(draw: Callable[..., Any], study: optuna.Study, **settings: Any) -> Figure:
    """Return the figure of one of Optuna's functions, which return its axes and leave it to pyplot."""
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context({**STYLE, "text.parse_math": True}):
        axes = draw(study, **settings)
        first = axes if hasattr(axes, "get_figure") else axes.flat[0]
        figure: Figure = first.get_figure()
        figure.set_layout_engine("constrained")
        pyplot.close(figure)
    return figure


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Optuna says of its figures: that they are experimental, and that a target is explained."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    optuna.logging.set_verbosity(before)
