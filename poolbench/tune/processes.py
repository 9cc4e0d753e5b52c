"""Local processes that help to tune one plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from poolbench.plugins import load_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.lifeline import end_with_the_launcher, starting_processes
from poolbench.tune.tuner import Listener, Plan, tune


@contextmanager
def helping(plan: Plan, settings: Settings, listener: Listener, devices: Sequence[str]) -> Iterator[None]:
    """Tune the plan in one further process per device while the context lasts.

    They end with it, or with this process, even if it is killed. What they had begun is then repeated. ``listener`` is
    called in the processes.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    helpers = [
        context.Process(target=_help, args=(receiver, plan, replace(settings, device=device), listener, number))
        for number, device in enumerate(devices, start=1)
    ]
    try:
        with starting_processes():
            for helper in helpers:
                helper.start()
        yield
    finally:
        sender.close()
        for helper in helpers:
            helper.join()


def _help(line: Connection, plan: Plan, settings: Settings, listener: Listener, worker: int) -> None:
    end_with_the_launcher(line)
    load_plugins(settings.plugins)
    tune(plan, settings, listener, worker)
