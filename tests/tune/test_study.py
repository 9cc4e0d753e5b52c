"""A study keeps its budget, starts from the default, stops what is behind, and repeats what was lost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from poolbench.core import Cell, Metric, MissingData, Result, UsageError
from poolbench.registry import benchmarks, heads, pools
from poolbench.search import Factor, Interval, OneOf
from poolbench.tune.confirmation import SEEDS, confirm
from poolbench.tune.design import CONFIRMATION_SEEDS, Design
from poolbench.tune.record import StudyRecord, records, tuned
from poolbench.tune.space import Space, applied
from poolbench.tune.storage import KillSafeLock, open_storage
from poolbench.tune.study import queue_again
from poolbench.tune.trial import run_trial

from .conftest import MakeStudy, Runs

optuna.logging.set_verbosity(optuna.logging.ERROR)


def run_all(study: Any, runs: Runs) -> None:
    while run_trial(study, runs):
        pass


def test_a_study_keeps_its_budget_and_starts_from_the_default(make_study: MakeStudy, cells: list[Cell]) -> None:
    study, runs = make_study(4), Runs()
    run_all(study, runs)
    record = study.record()
    assert [trial.number for trial in record.trials] == [0, 1, 2, 3]
    assert record.trials[0].parameters == study.space.default
    first = runs.seen[0]
    assert replace(first, seed=cells[0].seed, split="test") == cells[0]
    assert run_trial(study, runs) is None
    again = make_study(6)
    run_all(again, runs)
    assert len(again.record().trials) == 6
    assert len({trial.parameters["learning_rate"] for trial in again.record().trials}) == 6


def test_trials_have_seeds_of_their_own_and_never_see_test_images(make_study: MakeStudy) -> None:
    study, runs = make_study(5, seeds=4), Runs()
    run_all(study, runs)
    assert {cell.split for cell in runs.seen} == {"validation"}
    assert {cell.seed for cell in runs.seen} <= set(study.design.trial_seeds)
    record = confirm(study, runs)
    assert {cell.seed for cell in runs.seen} == {*study.design.trial_seeds, *SEEDS}
    assert len(SEEDS) == CONFIRMATION_SEEDS
    assert all(len(one.values["accuracy"]) == CONFIRMATION_SEEDS for one in record.confirmed)


def test_a_trial_that_is_behind_stops_after_two_seeds(make_study: MakeStudy, cells: list[Cell]) -> None:
    default = cells[0].train.learning_rate
    runs = Runs(lambda cell: 0.9 if cell.train.learning_rate == default else 0.5)
    study = make_study(4, seeds=6)
    run_all(study, runs)
    first, *others = study.record().trials
    assert first.state == "complete"
    assert len(first.values["accuracy"]) == 6
    assert [trial.state for trial in others] == ["pruned"] * 3
    assert [len(trial.values["accuracy"]) for trial in others] == [2, 2, 2]
    assert [trial.seconds for trial in study.record().trials] == [12.0, 4.0, 4.0, 4.0]


def test_a_better_trial_is_never_stopped(make_study: MakeStudy, cells: list[Cell]) -> None:
    default = cells[0].train.learning_rate
    runs = Runs(lambda cell: 0.5 if cell.train.learning_rate == default else 0.9 + cell.train.learning_rate / 100)
    study = make_study(2, seeds=5)
    run_all(study, runs)
    assert [trial.state for trial in study.record().trials] == ["complete", "complete"]


def test_the_search_finds_a_better_learning_rate(make_study: MakeStudy) -> None:
    study, runs = make_study(20), Runs()
    run_all(study, runs)
    record = confirm(study, runs)
    assert record.best is not None
    default, best = record.confirmed
    assert best.mean("accuracy") > default.mean("accuracy")
    assert 0.003 < float(record.best["learning_rate"] or 0) < 0.03


def test_the_default_wins_where_the_best_trial_was_lucky(make_study: MakeStudy, cells: list[Cell]) -> None:
    default = cells[0].train.learning_rate

    def lucky(cell: Cell) -> float:
        return 0.8 if cell.train.learning_rate == default else 0.7 if cell.seed in SEEDS else 0.9

    study, runs = make_study(3), Runs(lucky)
    run_all(study, runs)
    record = confirm(study, runs)
    assert record.best == study.space.default
    assert len(record.confirmed) == 2


def test_the_budget_in_seconds_ends_a_study(make_study: MakeStudy) -> None:
    study, runs = make_study(50, seconds=15.0), Runs()
    run_all(study, runs)
    spent = study.seconds()
    # A cell takes 2 s, a trial up to 6.
    assert 15.0 <= spent < 15.0 + 6.0
    assert study.is_settled()


def test_networks_that_fail_are_infeasible_and_not_tried_again(make_study: MakeStudy, cells: list[Cell]) -> None:
    default = cells[0].train.learning_rate

    class Failing(Runs):
        def result(self, cell: Cell) -> Result:
            if cell.train.learning_rate > default:
                return Result(cell, "failed", 0.0, 1.0, reason="top_k cannot take 9 of 4", traceback="")
            return super().result(cell)

    study, runs = make_study(12), Failing()
    run_all(study, runs)
    found = study.record().trials
    bad = [trial for trial in found if trial.state == "infeasible"]
    assert bad
    assert {trial.reason for trial in bad} == {"top_k cannot take 9 of 4"}
    assert all(float(trial.parameters["learning_rate"] or 0) > default for trial in bad)
    record = confirm(study, runs)
    assert float((record.best or {})["learning_rate"] or 0) <= default


def test_no_feasible_trial_is_said(make_study: MakeStudy) -> None:
    class Failing(Runs):
        def result(self, cell: Cell) -> Result:
            return Result(cell, "failed", 0.0, 1.0, reason="it cannot be built")

    study = make_study(2)
    run_all(study, Failing())
    record = confirm(study, Failing())
    assert record.failure == "no trial was feasible: it cannot be built"
    assert record.is_ended
    assert record.best is None


def test_missing_data_end_the_tuning_and_lose_no_trial(make_study: MakeStudy) -> None:
    class Missing(Runs):
        def result(self, cell: Cell) -> Result:
            return Result(cell, "skipped", 0.0, 1.0, reason="no data; --download fetches it")

    study = make_study(2)
    with pytest.raises(MissingData, match="--download"):
        run_trial(study, Missing())
    run_all(study, Runs())
    assert study.record().trials[0].parameters == study.space.default


def test_nan_is_infeasible(make_study: MakeStudy) -> None:
    study = make_study(1)
    run_all(study, Runs(lambda cell: float("nan")))
    assert study.record().trials[0].reason == "accuracy is nan"


def test_a_limit_excludes_what_exceeds_it(make_study: MakeStudy) -> None:
    study, runs = make_study(25, limits={"cost_forward_ms": 64.0}), Runs()
    run_all(study, runs)
    found = study.record().trials
    exceeding = [trial for trial in found if trial.parameters["batch_size"] in (128, 256)]
    assert exceeding
    assert {trial.reason for trial in exceeding} <= {"cost_forward_ms is beyond its limit", ""}
    assert all(trial.state != "complete" for trial in exceeding)
    record = confirm(study, runs)
    assert record.best is not None
    assert int(record.best["batch_size"] or 0) <= 64


def direct(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the tiny benchmark's metric ``name``, or a new one, better when it is lower."""
    from poolbench import task

    declared = task.Benchmark.metric
    lower = Metric(name, name, False)
    monkeypatch.setattr(task.Benchmark, "metric", lambda self, asked: lower if asked == name else declared(self, asked))


def test_several_objectives_give_a_front_and_no_winner(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(Runs):
        def result(self, cell: Cell) -> Result:
            rate = cell.train.learning_rate
            metrics = {"accuracy": min(1.0, 0.6 + 20 * rate), "train_loss": rate}
            return Result(cell, "finished", 0.0, 2.0, metrics=metrics)

    direct(monkeypatch, "train_loss")
    study, runs = make_study(8, objectives=("accuracy", "train_loss"), seeds=2), Two()
    run_all(study, runs)
    found = study.record().trials
    assert {trial.state for trial in found} == {"complete"}
    record = confirm(study, runs)
    assert record.best is None
    # An independent Pareto front: no other trial is at least as good in both and better in one.
    values = {trial.number: (trial.mean("accuracy"), -trial.mean("train_loss")) for trial in found}
    front = {
        number
        for number, mine in values.items()
        if not any(o != mine and all(x >= y for x, y in zip(o, mine, strict=True)) for o in values.values())
    }
    assert {one.trial for one in record.confirmed} - {0} == front - {0}


def test_networks_that_have_not_learned_are_not_on_the_front(
    make_study: MakeStudy, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct(monkeypatch, "loss")
    default = cells[0].train.learning_rate

    class Constant(Runs):
        """At a high learning rate the answer is constant: at chance, with a perfect consistency."""

        def result(self, cell: Cell) -> Result:
            high = cell.train.learning_rate > 3 * default
            metrics = {"accuracy": 0.5 if high else 0.9, "loss": 0.0 if high else 1.0}
            facts = {"chance": 0.5, "commonest": 1.0 if high else 0.5}
            return Result(cell, "finished", 0.0, 2.0, metrics=metrics, facts=facts)

    study, runs = make_study(12, objectives=("loss",)), Constant()
    run_all(study, runs)
    bad = [trial for trial in study.record().trials if float(trial.parameters["learning_rate"] or 0) > 3 * default]
    assert bad
    assert {trial.state for trial in bad} == {"infeasible"}
    assert {trial.reason for trial in bad} == {"3 of 3 networks have not learned"}
    assert float((confirm(study, runs).best or {})["learning_rate"] or 0) <= 3 * default


def test_an_interrupted_trial_is_repeated_with_its_hyperparameters(make_study: MakeStudy) -> None:
    class Interrupted(Runs):
        def __call__(self, cells: Any) -> list[Result]:
            found = super().__call__(cells)
            if len(self.seen) > 3:
                raise KeyboardInterrupt
            return found

    study, interrupted = make_study(3), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run_all(study, interrupted)
    runs = Runs()
    run_all(make_study(3), runs)
    assert runs.seen[0].train == interrupted.seen[-1].train
    record = study.record()
    assert len(record.trials) == 3


def test_a_lost_trial_is_repeated_and_a_running_one_is_not(make_study: MakeStudy) -> None:
    study, runs = make_study(3), Runs()
    study.prepare()
    lost = study.optuna.ask()
    parameters = study.space.suggest(lost)
    with study.trial_lock(lost.number):
        study.repeat_lost()
        assert study.optuna.trials[lost.number].state == TrialState.RUNNING
    study.repeat_lost()
    assert study.optuna.trials[lost.number].state == TrialState.FAIL
    run_all(study, runs)
    record = study.record()
    assert len(record.trials) == 3
    assert record.trials[0].parameters == parameters


def test_two_studies_share_the_budget(make_study: MakeStudy) -> None:
    one, other, runs = make_study(5), make_study(5), Runs()
    assert run_trial(one, runs)
    assert run_trial(other, runs)
    run_all(one, runs)
    assert run_trial(other, runs) is None
    assert len(other.record().trials) == 5
    parameters = [tuple(trial.parameters.values()) for trial in one.record().trials]
    assert len(set(parameters)) == 5


def test_equal_seeds_give_equal_searches(tmp_path: Path, cells: list[Cell]) -> None:
    from poolbench.tune.design import Budget
    from poolbench.tune.study import Study

    found = []
    for name in ("a", "b"):
        where = open_storage(tmp_path / name / "tuning", None, queue_again)
        study = Study(tmp_path / name, cells[0], Design(), Budget(9), where)
        run_all(study, Runs())
        found.append([trial.parameters for trial in study.record().trials])
    assert found[0] == found[1]


def test_a_record_is_read_as_it_was_written(make_study: MakeStudy, tmp_path: Path, cells: list[Cell]) -> None:
    study, runs = make_study(3, limits={"cost_forward_ms": 1000.0}), Runs()
    run_all(study, runs)
    with pytest.raises(UsageError, match=r"no tuning result for tiny .*; run 'poolbench tune tiny --trials N'"):
        tuned(tmp_path, cells)
    study.write_trials()
    with pytest.raises(UsageError, match="to its end first"):
        tuned(tmp_path, cells[:2])
    record = confirm(study, runs)
    study.write(record)
    (read,) = records(tmp_path)
    assert read == record
    own = [cell for cell in cells if cell.group == cells[0].group]
    chosen = tuned(tmp_path, own)
    assert [cell.seed for cell in chosen] == [cell.seed for cell in own]
    assert {cell.split for cell in chosen} == {"test"}
    assert {cell.train.learning_rate for cell in chosen} == {(record.best or {})["learning_rate"]}


def test_a_torn_line_of_the_journal_is_dropped(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(1)
    run_all(study, Runs())
    journal = tmp_path / "tuning" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    again = make_study(2)
    run_all(again, Runs())
    assert len(again.record().trials) == 2
    assert journal.read_bytes().startswith(whole)
    for line in journal.read_bytes().splitlines():
        json.loads(line)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    journal.touch()
    code = (
        "import os, sys, pathlib; from poolbench.tune.storage import KillSafeLock;"
        "lock = KillSafeLock(pathlib.Path(sys.argv[1])); lock.acquire(); print('held', flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(journal)], capture_output=True, text=True, check=False)
    assert done.stdout == "held\n"
    lock = KillSafeLock(journal)
    lock._lock.timeout = 5
    assert lock.acquire()
    lock.release()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.db"])
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match=r"--storage") as error:
        open_storage(tmp_path, url, queue_again)
    assert "\n" not in str(error.value)


def test_a_database_serves_as_storage(make_study: MakeStudy, tmp_path: Path) -> None:
    study, runs = make_study(3, url=f"sqlite:///{tmp_path}/studies.db"), Runs()
    study.repeat_lost()
    run_all(study, runs)
    assert len(study.record().trials) == 3
    assert not (tmp_path / "tuning" / "journal.log").exists()


@pytest.mark.parametrize("registry", [pools, heads], ids=["pools", "heads"])
def test_what_is_tunable_is_a_declared_option_within_its_range(registry: Any) -> None:
    declared = 0
    for name in registry.names():
        options = registry.options(name)
        for option, search in registry.get(name).tunable.items():
            declared += 1
            match search:
                case Interval(low, high):
                    assert low <= options[option].default <= high
                    options[option].check(low)
                case OneOf(values):
                    assert options[option].default in values
                    for value in values:
                        options[option].check(value)
                case Factor():
                    assert options[option].default > 0
    assert declared >= 3


def test_every_task_can_be_tuned_from_its_default() -> None:
    from poolbench.runner.plan import Selection, plan

    for name in benchmarks.names():
        if benchmarks.get(name)().folds:
            with pytest.raises(UsageError, match="its seeds are folds"):
                Design().check(benchmarks.get(name)())
            continue
        cell = plan(Selection((name,), "smoke"))[0]
        space = Space.of(cell)
        assert applied(cell, space.default) == cell
        assert {"learning_rate", "weight_decay", "batch_size"} <= space.searches.keys()


def test_options_of_the_head_are_tuned(cells: list[Cell]) -> None:
    cell = replace(cells[0], head=heads.resolve("top_k", {}))
    space = Space.of(cell)
    assert space.default["head.share"] == 0.25
    changed = applied(cell, {**space.default, "head.share": 0.5})
    assert changed.head.options["share"] == 0.5
    assert changed.head.options["k"] is None
    # The share counts for nothing beside a number of positions.
    fixed = Space.of(replace(cell, head=heads.resolve("top_k", {"k": 3})))
    assert "head.share" not in fixed.searches


@pytest.mark.parametrize(
    ("name", "search", "message"),
    [
        ("learning_rat", OneOf((1.0,)), "no such field"),
        ("weight_decay", Factor(3), "above 0"),
        ("weight_decay", Interval(0.1, 1, log=True), "above 0"),
        ("schedule", OneOf(("cosine", "nonsense")), "schedule is one of"),
        ("schedule", Interval(0, 1), "not a number"),
        ("shuffle", Interval(0, 1), "not a number"),
        ("epochs", (1, 2), "a search is an Interval"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(cells: list[Cell], name: str, search: Any, message: str) -> None:
    from poolbench.tune.space import _check

    with pytest.raises(UsageError, match=message):
        _check(cells[0], name, search)


def test_whole_numbers_stay_whole(cells: list[Cell]) -> None:
    space = Space({"batch_size": Factor(4), "epochs": Interval(1, 9)}, {"batch_size": 20, "epochs": 2})
    study = optuna.create_study()
    for _ in range(20):
        found = space.suggest(study.ask())
        assert {type(value) for value in found.values()} == {int}
        assert 5 <= int(found["batch_size"] or 0) <= 80
        applied(cells[0], found)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        (Design(("acuracy",)), "unknown objective of tiny 'acuracy'; did you mean 'accuracy'"),
        (Design(("train_loss",)), "unknown objective"),
        (Design(("accuracy", "accuracy")), "each objective once"),
        (Design(limits={"cost": 1.0}), "unknown limit"),
        (Design(limits={"cost_flops": float("nan")}), "finite"),
        (Design(()), "at least one objective"),
    ],
)
def test_wrong_designs_are_refused(tiny: Any, design: Design, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        design.check(tiny)


def test_the_split_follows_from_the_design() -> None:
    assert Design().split == "validation"
    assert Design(limits={"cost_flops": 1e6}).split == "validation"
    assert Design(("accuracy", "consistency")).split == "validation_measured"


def test_an_empty_record_has_no_winner(make_study: MakeStudy) -> None:
    record = make_study(1).record()
    assert isinstance(record, StudyRecord)
    assert record.tuned is None
    assert record.seconds == 0
