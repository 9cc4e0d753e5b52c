"""What a newcomer sees who opens the links of `poolbench ui` in a browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import psutil
import pytest

from poolbench.analysis.groups import groups_of
from poolbench.analysis.learning import judged
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger

selenium = pytest.importorskip("selenium")

from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver import Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 240  # seconds, for a page on a busy machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver"),
]


STRANGE = "ran"
"""A file that planted modules would write."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def links(folder: Path) -> Iterator[dict[str, str]]:
    """Run the smoke preset and serve its MLflow UI; yield the printed links by task."""
    command = [sys.executable, "-m", "poolbench.cli"]
    run = [*command, "run", "all", "--preset", "smoke", "--seeds", "0-1", "--device", "cpu"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True, timeout=900)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for module in ("mlflow", "uvicorn", "fastapi"):
        (folder / f"{module}.py").write_text(f"open({str(folder / STRANGE)!r}, 'w')\nraise SystemExit")
    # -P: as the command `poolbench`, which does not look for modules in the current folder.
    serve = [sys.executable, "-P", "-m", "poolbench.cli", "ui", "--port", str(port)]
    with subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in benchmarks.names()]
        yield dict(line.strip().split(": ", 1) for line in lines)
        server.terminate()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=3000,1200"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    try:
        browser = Chrome(options, Service(str(DRIVER)))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
    yield browser
    browser.quit()


def wait_for_server(address: str) -> None:
    for _ in range(PATIENCE):
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(1)
    pytest.fail(f"no server at {address}")


def test_the_server_is_reachable_from_this_machine_alone(links: dict[str, str]) -> None:
    (address,) = {link.partition("/#")[0] for link in links.values()}
    wait_for_server(address)
    port = int(address.rpartition(":")[2])
    listening = [one for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}


def test_no_module_of_the_current_folder_runs(links: dict[str, str], folder: Path) -> None:
    wait_for_server(next(iter(links.values())).partition("/#")[0])
    assert (folder / "mlflow.py").exists()
    assert not (folder / STRANGE).exists()


def visit(browser: Chrome, address: str) -> None:
    """Load a page anew: links of the UI differ after the #, which alone loads nothing."""
    browser.get("about:blank")
    browser.get(address)


def wait_for(browser: Chrome, *texts: str) -> str:
    """Return the text of the page as soon as it holds all of these."""

    def found(_: Chrome) -> str | None:
        page = browser.find_element(By.TAG_NAME, "body").text
        return page if all(text in page for text in texts) else None

    return WebDriverWait(browser, PATIENCE, ignored_exceptions=None).until(found, f"the page lacks one of {texts}")


def click(browser: Chrome, selector: str) -> None:
    element = WebDriverWait(browser, PATIENCE).until(lambda _: browser.find_elements(By.CSS_SELECTOR, selector))[0]
    # Without moving a pointer: banners may lie above it.
    browser.execute_script("arguments[0].click()", element)


def accuracies(folder: Path) -> dict[str, list[float]]:
    """Return {task: mean accuracy of each group with a network that has learned}, in ascending order."""
    means: dict[str, list[float]] = {}
    for group in groups_of(judged(Ledger(folder / "poolbench-out").results())):
        values = group.values("accuracy").values()
        means.setdefault(group.results[0].cell.benchmark, []).extend([fmean(values)] if values else [])
    return {task: sorted(values) for task, values in means.items()}


def test_the_printed_links_show_every_group_with_its_accuracy_and_charts(
    links: dict[str, str], folder: Path, browser: Chrome
) -> None:
    assert list(links) == [
        "depth_ablation",
        "global_pooling",
        "rotation_variance",
        "shift_robustness",
        "training_budget",
    ]
    wait_for_server(links["global_pooling"].partition("#")[0])
    groups = {
        "depth_ablation": ("depth1", "depth3"),
        "global_pooling": ("avg", "max"),
        "rotation_variance": ("plain", "rotated"),
        "shift_robustness": ("none", "blur3"),
        "training_budget": ("max_aps", "epochs=2"),
    }
    expected = accuracies(folder)
    assert len(expected["shift_robustness"]) >= 2
    for task, link in links.items():
        visit(browser, link)
        # Each group by name, and nothing but groups.
        assert "seed 0" not in wait_for(browser, *groups[task], "matching runs"), task
        cells = browser.find_elements(By.CSS_SELECTOR, "[role=gridcell][col-id='metrics.`accuracy`']")
        # Where no network has learned in these few steps, there is no mean.
        shown = sorted(float(cell.text) for cell in cells if cell.text.strip(" -"))
        assert shown == pytest.approx(expected[task], abs=1e-3), task
        visit(browser, link + "&compareRunsMode=CHART")
        wait_for(browser, "Answer")
        if shown:
            WebDriverWait(browser, PATIENCE).until(
                lambda _: len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) >= 2, f"no charts of {task}"
            )


def test_a_seed_below_its_group_has_a_curve_and_the_group_a_figure(links: dict[str, str], browser: Chrome) -> None:
    link = links["rotation_variance"]
    wait_for_server(link.partition("#")[0])
    visit(browser, link.replace("poolbench-groups", "poolbench-seeds"))
    # The tree, with its groups folded.
    assert "seed 0" not in wait_for(browser, "plain", "matching runs")
    click(browser, "[role=gridcell][col-id='attributes.`Run Name`'] button")
    wait_for(browser, "seed 0")
    seed = str(browser.find_elements(By.LINK_TEXT, "seed 0")[0].get_attribute("href"))
    visit(browser, seed + "/model-metrics")
    # A section of charts by epoch, folded.
    wait_for(browser, "seed 0", "curve")
    visit(browser, link.replace("poolbench-groups", "poolbench-seeds") + "&compareRunsMode=CHART")
    wait_for(browser, "Answer", "curve/val_accuracy")
    visit(browser, link)
    wait_for(browser, "plain")
    group = next(one for one in browser.find_elements(By.TAG_NAME, "a") if "/runs/" in str(one.get_attribute("href")))
    visit(browser, str(group.get_attribute("href")) + "/artifacts/figures/angles.png")
    WebDriverWait(browser, PATIENCE).until(
        lambda _: any(image.size["width"] > 200 for image in browser.find_elements(By.TAG_NAME, "img")), "no figure"
    )
