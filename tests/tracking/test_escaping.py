"""Names, reasons and tracebacks of strangers stay text: in pages, Markdown, notes of MLflow and JUnit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from PIL import Image

from poolbench import registry
from poolbench.analysis.comparison import Change
from poolbench.analysis.comparison import Comparison as SideBySide
from poolbench.analysis.differences import Comparison
from poolbench.analysis.history import Night, Step, Trend
from poolbench.analysis.incidents import Incident, Learned
from poolbench.analysis.power import Sight
from poolbench.analysis.statistics import Interval
from poolbench.choice import Choice
from poolbench.cli import main
from poolbench.core import Cell, Metric, Result
from poolbench.runner.evidence import read_evidence
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench.tune.design import Budget, Design
from poolbench.tune.record import Confirmation, StudyRecord
from poolbench_tracking.comparison_report import write_comparison
from poolbench_tracking.gate_report import power_to_markdown, to_junit, to_markdown
from poolbench_tracking.history_report import to_html as history_page
from poolbench_tracking.history_report import to_markdown as history_section
from poolbench_tracking.links import Links
from poolbench_tracking.mlflow_notes import experiment_note, group_notes
from poolbench_tracking.mlflow_studies import _note as study_note
from poolbench_tracking.report import write_report
from poolbench_tracking.tracker_issue import Issue, NightVerdict, requests

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "x](javascript:alert(1)) [y](javascript:alert(1))",
    "```\n<script>alert(1)</script>\n``` | a | `b` |\n\n# c\n\n<img src=x onerror=alert(1)>",
    "-->]]></title></style></script><svg onload=alert(1)>&lt;\x00\x1b[31m\ud800",
    "' onmouseover='alert(1)",
)
Store = Callable[..., Result]


class Elements(HTMLParser):
    """Collects what a browser would act on: names of elements, attributes, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.scripts = ""
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_script = tag == "script"
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        self.scripts += data if self._in_script else ""


def assert_harmless(page: str) -> None:
    found = Elements(page)
    assert not [name for name in found.attributes if name.startswith("on")]
    assert not [address for address in found.addresses if address.split(":")[0].strip().lower() in ("javascript", "x")]
    assert "alert(1)" not in found.scripts
    assert not found.tags & {"iframe", "object", "embed", "base", "form"}


def assert_plain(markdown: str) -> None:
    """Assert that Markdown, raw HTML allowed, renders without anything from a name."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable("table")
    renderer.validateLink = lambda url: True  # type: ignore[method-assign] # others let scripts through
    page = renderer.render(markdown)
    assert_harmless(page)
    found = Elements(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not [address for address in found.addresses if not address.startswith("http")]


def test_the_checks_see_what_leaks() -> None:
    for text in HOSTILE[:2]:
        with pytest.raises(AssertionError):
            assert_harmless(f"<p>{text}</p>")
    for text in HOSTILE[:3]:
        with pytest.raises(AssertionError):
            assert_plain(text)


@pytest.fixture
def named(study: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Benchmark]:
    """Register the benchmark "study" with a text in all places that a plugin fills in."""

    def make(text: str) -> Benchmark:
        made = replace(
            study, title=text, question=text, protocol=text,
            metrics=[replace(metric, title=text, unit=text) for metric in study.metrics],
            figures=[replace(figure, title=text, caption=text) for figure in study.figures[:2]],
            claims=[replace(claim, sentence=text, source=text) for claim in study.claims],
            choices=(Choice("pool", text, "avg", ("accuracy",)),),
            answers=lambda scene: [text],
        )  # fmt: skip
        monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", lambda: made))
        return made

    return make


def fill(ledger: Ledger, store: Store, text: str) -> None:
    """Write cells, a failed one, and a command, with a text in all places that a work folder fills in."""
    facts = {"environment": {"python": text, "device": text}, "data_source": text, "data_digest": text}
    for pool in ("max", "avg"):
        for seed in range(4):
            store(
                pool, seed, 0.8 + 0.1 * (pool == "max") + 0.01 * seed, facts=facts, variant=text.replace("\ud800", "")
            )
    failed = Cell.from_config({**store("blur", 7, 0.5).cell.config(), "variant": "failed"})
    record = ledger.record(failed.id)
    record.begin(failed, facts)
    record.append("failed", reason=text, traceback=f"Traceback:\n{text}")
    ledger.open_invocation(text, text).close(text)


@pytest.mark.parametrize("text", [HOSTILE[0], " ".join(HOSTILE)], ids=["a script", "all"])
def test_the_report_and_the_notes_of_its_runs(
    text: str, named: Callable[[str], Benchmark], store: Store, ledger: Ledger
) -> None:
    benchmark = named(text)
    fill(ledger, store, text)
    cell = ledger.results()[0].cell
    links = Links({cell.id: "javascript:alert(1)"}, {"study": {text: "javascript:alert(1)"}})
    page = write_report(ledger, ledger.folder / "report", links)
    html = page.read_text()
    assert_harmless(html)
    assert "alert" in html
    assert_plain(page.with_suffix(".md").read_text())
    for note in (experiment_note(benchmark), *group_notes(read_evidence(ledger)).values()):
        assert_plain(note)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_note_of_a_study(text: str, named: Callable[[str], Benchmark], cell_of: Callable[..., Cell]) -> None:
    named(text)
    confirmed = [Confirmation(0, True, {"head.x": text}, {"accuracy": [0.5] * 5})]
    record = StudyRecord("0" * 16, cell_of(variant=text), Design(), {}, Budget(1), [], confirmed, {"head.x": text})
    assert_plain(study_note(record))


ACCURACY = Metric("accuracy", "accuracy", True, 0.02, gated=True)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_gate(text: str) -> None:
    metric = replace(ACCURACY, name=text, title=text)
    fell = Comparison(metric, 0.9, 0.8, 0.07, 0.13, 1e-5, 1 - 1e-5, 5, True)
    verdicts: Any = ("regressed", "no data", "improved", "fine", "inconclusive")
    found = [
        Incident(text, text, text, missing=text, comparisons=(fell,), learned=Learned(5, 5, 5, 5), verdict=verdict,
                 reference=text)
        for verdict in verdicts
    ]  # fmt: skip
    root = ElementTree.fromstring(to_junit(found).encode())
    assert len(root.findall(".//testcase")) == 5
    assert {element.tag for element in root.iter()} <= {
        "testsuites",
        "testsuite",
        "testcase",
        "failure",
        "error",
        "skipped",
    }
    assert_plain(to_markdown(found))
    sight = Sight(text, text, text, metric, 0.8, 0.1, 5, 5, 0.05, 3)
    assert_plain(power_to_markdown([sight]))


@pytest.mark.parametrize("text", HOSTILE)
def test_the_history(text: str) -> None:
    nights, good, bad = (text, f"{text}2"), Night(text, text), Night(text, f"{text}2")
    metric = replace(ACCURACY, title=text, unit=text)
    band, step = Interval(0.85, 0.83, 0.87, 3), Step(1, 0.9, 0.8)
    found = [Trend(text, text, text, metric, nights, (0.9, 0.8), frozenset(nights), band, step, good, bad)]
    assert_harmless(history_page(found))
    assert_plain(history_section(found))


@pytest.mark.parametrize("text", HOSTILE)
def test_two_results_side_by_side(text: str, tmp_path: Path) -> None:
    interval = Interval(0.5, 0.4, 0.6, 5)
    metric = replace(ACCURACY, title=text)
    changes = [Change(text, text, metric, interval, interval, interval, verdict) for verdict in ("worse", "other")]
    page = write_comparison(SideBySide(changes, [text], [text]), (text, text), tmp_path)
    assert_harmless(page.read_text())
    assert_plain(page.with_suffix(".md").read_text())


@pytest.mark.parametrize("text", HOSTILE)
def test_the_issue_of_the_gate(text: str) -> None:
    verdict = NightVerdict(1, text, text, (text,))
    for issue in (None, Issue(3, "")):
        for request in requests(verdict, "# Regression gate\n", issue):
            assert_plain(request.body)


NETWORKS = """
from torch import nn

def net():
    features = nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(4, 2))
"""
FOLDERS = ("<script>alert(1)<", '"><img src=x onerror=alert(1)>', "](javascript:alert(1))\n`|`")


@pytest.mark.parametrize("verb", [("evaluate",), ("advise",), ("inspect", "model"), ("inspect", "pools")], ids=" ".join)
def test_pages_about_a_model_of_the_user(
    verb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETWORKS)
    folder = f"{FOLDERS[0]}{FOLDERS[1]}"
    generator = np.random.default_rng(0)
    names = []
    for name in FOLDERS[1:]:
        (tmp_path / folder / name).mkdir(parents=True)
        for number in range(4):
            names.append(tmp_path / folder / name / f"{FOLDERS[0]}{number}.png")
            Image.fromarray(generator.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(names[-1])
    out = f"out{FOLDERS[1]}"
    options = {
        "evaluate": ["nets.py:net", "--data", folder, "--size", "14", "--exact", "2"],
        "advise": ["nets.py:net", "--data", folder, "--size", "14", "--pools", "blur3", "--budget", "1s"],
        "model": ["nets.py:net", "--image", str(names[0]), "--data", folder, "--size", "14"],
        "pools": [str(names[0]), "--pool", "max"],
    }[verb[-1]]
    more = [] if verb[-1] == "pools" else ["--no-mlflow", "--device", "cpu"]
    done = CliRunner().invoke(main, [*verb, *options, *more, "--out", out], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (page,) = (tmp_path / out).glob("*.html")
    assert_harmless(page.read_text())
    assert "alert(1)" in page.read_text()


BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@pytest.mark.browser
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver")
def test_a_browser_runs_no_script_of_a_name(
    named: Callable[[str], Benchmark], store: Store, ledger: Ledger, tmp_path: Path
) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    text = " ".join(HOSTILE).replace("alert(1)", "window.ran=1")
    named(text)
    fill(ledger, store, text)
    page = write_report(ledger, ledger.folder / "report")
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'p'}"):
        options.add_argument(argument)
    try:
        browser = Chrome(options, Service(str(DRIVER)))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
    try:
        browser.get(page.as_uri())
        assert "window.ran" in browser.find_element("tag name", "body").text
        assert browser.execute_script("return window.ran === undefined && document.images.length === 0")
    finally:
        browser.quit()
