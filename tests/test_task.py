"""Figures as data: every drawing function that a task names exists, and naming it imports nothing."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

from poolbench.registry import benchmarks
from poolbench.task import DeferredFunction, deferred


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_drawing_function_of_a_task_exists(name: str) -> None:
    figures = benchmarks.get(name)().figures
    assert figures
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert figure.title
        assert figure.caption.endswith(".")
        assert figure.draw_summary is not None or figure.draw_cell is not None
        for draw in (figure.draw_summary, figure.draw_cell):
            if draw is not None:
                assert isinstance(draw, DeferredFunction)
                assert callable(draw.resolve())


@pytest.mark.parametrize("name", benchmarks.names())
def test_mlflow_draws_the_learning_curves_of_a_cell(name: str) -> None:
    curves = [figure for figure in benchmarks.get(name)().figures if figure.name.endswith("_curves")]
    assert not any(figure.draw_cell for figure in curves)


def test_a_deferred_function_is_imported_when_it_is_called() -> None:
    function = deferred("json").dumps
    assert function([1], indent=None) == "[1]"
    with pytest.raises(AttributeError, match="module 'json' has no function 'dump_it'"):
        deferred("json").dump_it([1])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        deferred("no_such_module").draw()


def test_deferred_functions_are_equal_and_can_be_copied() -> None:
    function = deferred("json").dumps
    assert function == deferred("json").dumps
    assert pickle.loads(pickle.dumps(function)) == function
    assert copy.deepcopy(deferred("json")).dumps == function


def test_declaring_figures_imports_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys\nfrom poolbench.registry import benchmarks\n"
        "for name in benchmarks.names():\n    assert benchmarks.get(name)().figures\n"
        "assert not {'matplotlib', 'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
