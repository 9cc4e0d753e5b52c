"""The live page in a browser: its numbers are torch's wherever the object is dragged, and it loads nothing."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench import geometry
from poolbench.architectures import create_model
from poolbench.architectures.blocks import ClassMaps
from poolbench.core import Component
from poolbench.engine import Normalize, initialise
from poolbench.files import StorageError
from poolbench.inspect.live_objects import drawn_objects, patch
from poolbench.inspect.live_scene import LiveNetwork, LiveScene
from poolbench.inspect.program import STEPS, export_program
from poolbench.measures.classification import probabilities
from poolbench.pooling import create_pool
from poolbench.pooling.base import Head, Pool
from poolbench.pooling.padding import PADDING_MODES
from poolbench.registry import heads, pools
from poolbench_tracking.live_page import live_page, write_live

selenium = pytest.importorskip("selenium")

from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver import ActionChains, Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 120  # seconds, on a busy machine
in_browser = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver"),
]
CANVAS = 32
POOLS = ("max", "avg", "max_blur3", "max_aps", "decimate")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def network(classes: int, pool: str, head: str, seed: int = 3) -> nn.Module:
    """A small untrained network; what it says of an image depends on where the object is."""
    net = create_model("shape_net", (1, CANVAS, CANVAS), classes, pool, head, padding_mode="circular", num_pooling=2)
    initialise(net, seed)
    return nn.Sequential(OrderedDict(normalize=Normalize((0.5,), (0.25,)), network=net)).eval()


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str, str], nn.Module]:
    """Networks by scene, pool and head."""
    scenes = {"shapes": 2, "marks": 3}
    return {
        (scene, pool, head): network(classes, pool, head)
        for scene, classes in scenes.items()
        for pool, head in itertools.product(POOLS, ("avg", "max"))
    }


@pytest.fixture(scope="module")
def scenes(models: Mapping[tuple[str, str, str], nn.Module]) -> list[LiveScene]:
    shape = (1, CANVAS, CANVAS)
    # An L, so that no symmetry hides an error.
    image = torch.zeros(shape, dtype=torch.uint8)
    image[:, 9:20, 8:11], image[:, 17:20, 8:18], image[:, 9, 8] = 255, 130, 40
    mark = patch("an L", 2, image)
    found = []
    for title, classes in (("shapes", ("rectangle", "circle")), ("marks", ("I", "<b>", "L"))):
        networks = [
            LiveNetwork(pool, head, 0.5, 10, True, "untrained", export_program(model, shape).config())
            for (scene, pool, head), model in models.items()
            if scene == title
        ]
        objects = drawn_objects(CANVAS) if title == "shapes" else [mark]
        found.append(LiveScene(title, shape, classes, objects, networks, "made <here>"))
    return found


@pytest.fixture(scope="module")
def page(scenes: list[LiveScene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_live(scenes, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        browser = Chrome(options, Service(str(DRIVER)))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
    browser.set_script_timeout(PATIENCE)
    browser.get(page.as_uri())
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.quit()
    assert not errors


def ask(browser: Chrome, expression: str, *arguments: Any) -> Any:
    """Evaluate an expression of ``poolbench``, the page's interface, in the page."""
    return browser.execute_script(f"return poolbench.{expression}", *arguments)


def tensor(map: Mapping[str, Any]) -> Tensor:
    return torch.tensor(map["data"], dtype=torch.float32).view(map["shape"])


def recorded(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the outputs of all modules, by path, for an image (1, c, h, w); the network's own path is empty."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, given, out, path=path: outputs.update({path: out[0]}))
        for path, module in model.named_modules()
    ]
    with torch.no_grad():
        model.eval()(image)
    for hook in hooks:
        hook.remove()
    return outputs


def assert_answers_are_torch_s(browser: Chrome, models: Mapping[tuple[str, str, str], nn.Module]) -> None:
    """Compare what the page says of its canvas with what torch says of the same pixels."""
    state = ask(browser, "state()")
    pixels = tensor(ask(browser, "pixels()"))[None]
    assert pixels.sum() > 0
    networks = ask(browser, "networks()")
    assert [found["name"] for found in networks] == list(POOLS)
    for found in networks:
        model = models[state["scene"], found["name"], found["head"]]
        outputs = recorded(model, pixels)
        logits = outputs[""][None]
        torch.testing.assert_close(torch.tensor(found["logits"]), logits[0], **CLOSE)
        torch.testing.assert_close(torch.tensor(found["probabilities"]), probabilities(logits)[0], **CLOSE)
        torch.testing.assert_close(tensor(found["pooled"]), outputs["network.pool1"], **CLOSE)
        torch.testing.assert_close(tensor(found["maps"]), outputs["network.conv3"], **CLOSE)


@pytest.fixture
def start(browser: Chrome) -> Mapping[str, Any]:
    """The page as it opens; returns its state."""
    ask(browser, "scene(0)")
    state: Mapping[str, Any] = ask(browser, "state()")
    return state


def test_the_page_is_one_file_that_loads_nothing(scenes: list[LiveScene], page: Path) -> None:
    text = page.read_text()
    assert text == live_page(scenes)
    assert not re.search(r"""(src|href)=|url\(|@import|https?://|fetch\(|import\(""", text)
    # The data cannot end its script element.
    assert text.count("</script>") == 2
    assert "made \\u003chere>" in text
    assert len(text) < 500_000


def test_a_folder_that_cannot_be_written_is_named(scenes: list[LiveScene], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        write_live(scenes, tmp_path / "file")


class TestInBrowser:
    pytestmark = in_browser

    def test_dragging_moves_the_object_by_pixels(
        self, browser: Chrome, models: Mapping[tuple[str, str, str], nn.Module], start: Mapping[str, Any]
    ) -> None:
        stage = browser.find_element(By.ID, "stage")
        pixel = stage.size["width"] / CANVAS
        before = tensor(ask(browser, "pixels()"))
        drag = ActionChains(browser).move_to_element(stage).click_and_hold()
        for dy, dx in ((0, 1), (2, 0), (-3, -2)):
            drag = drag.move_by_offset(round(dx * pixel), round(dy * pixel))
        drag.release().perform()
        state = ask(browser, "state()")
        assert (state["y"] - start["y"], state["x"] - start["x"]) == (-1, -1)
        torch.testing.assert_close(tensor(ask(browser, "pixels()")), before.roll((-1, -1), (-2, -1)))
        assert_answers_are_torch_s(browser, models)
        # Far beyond the border the object stays whole.
        ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(900, 0).release().perform()
        assert ask(browser, "state()")["x"] == start["range"]["right"]
        assert tensor(ask(browser, "pixels()")).sum() == before.sum()
        assert_answers_are_torch_s(browser, models)

    def test_a_finger_drags_the_object(self, browser: Chrome, start: Mapping[str, Any]) -> None:
        stage = browser.find_element(By.ID, "stage")
        pixel = stage.size["width"] / CANVAS
        box = browser.execute_script(
            "const b = arguments[0].getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]", stage
        )
        for kind, dx in (("touchStart", 0), ("touchMove", 1), ("touchMove", 4), ("touchEnd", 4)):
            points = [] if kind == "touchEnd" else [{"x": box[0] + dx * pixel, "y": box[1]}]
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        WebDriverWait(browser, PATIENCE).until(lambda _: ask(browser, "state()")["x"] == start["x"] + 4)

    def test_arrow_keys_move_it_and_the_page_says_what_changed(
        self, browser: Chrome, models: Mapping[tuple[str, str, str], nn.Module], start: Mapping[str, Any]
    ) -> None:
        stage = browser.find_element(By.ID, "stage")
        said = browser.find_element(By.ID, "said")
        before = {found["name"]: found["answer"] for found in ask(browser, "networks()")}
        flips = 0
        for key, words in (
            (Keys.ARROW_RIGHT, "1 px right"),
            (Keys.ARROW_DOWN, "1 px down"),
            (Keys.ARROW_LEFT, "1 px left"),
            (Keys.ARROW_UP, "1 px up"),
        ):
            stage.send_keys(key)
            assert_answers_are_torch_s(browser, models)
            after = {found["name"]: found["answer"] for found in ask(browser, "networks()")}
            assert said.text.startswith(f"Moved {words}: ")
            changed = [name for name in after if after[name] != before[name]]
            flips += len(changed)
            assert ("no answer changed" in said.text) == (not changed)
            for name in changed:
                assert re.search(rf"\b{name}\b.* changed", said.text)
            before = after
        now = ask(browser, "state()")
        assert (now["y"], now["x"]) == (start["y"], start["x"])
        stage.send_keys(Keys.ARROW_UP)
        stage.send_keys(Keys.HOME)
        assert ask(browser, "state()") == now

    @pytest.mark.parametrize("scene", [0, 1])
    def test_rotated_objects_have_torch_s_answers(
        self, browser: Chrome, models: Mapping[tuple[str, str, str], nn.Module], scenes: list[LiveScene], scene: int
    ) -> None:
        ask(browser, "scene(arguments[0])", scene)
        browser.find_element(By.ID, "stage").send_keys(",")
        assert ask(browser, "state()")["degrees"] == 5
        browser.find_element(By.ID, "degrees").send_keys(Keys.ARROW_RIGHT)
        state = ask(browser, "state()")
        assert state["degrees"] == 6
        one = scenes[scene].objects[0]
        upright = torch.from_numpy(np.frombuffer(one.pixels, np.uint8).copy()).view(1, *one.shape) / 255
        turned = geometry.rotate(upright, torch.tensor([6.0]))
        canvas = torch.zeros(1, 3 * CANVAS, 3 * CANVAS)
        top, left = CANVAS + state["y"], CANVAS + state["x"]
        canvas[:, top : top + one.shape[1], left : left + one.shape[2]] = turned[0]
        expected = canvas[:, CANVAS:-CANVAS, CANVAS:-CANVAS]
        torch.testing.assert_close(tensor(ask(browser, "pixels()")), expected, **CLOSE)
        assert_answers_are_torch_s(browser, models)

    @pytest.mark.parametrize("shape", [(1, 9, 9), (3, 8, 12)])
    def test_rotation_is_that_of_geometry(self, browser: Chrome, shape: tuple[int, int, int]) -> None:
        image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        given = {"shape": list(shape), "data": image.flatten().tolist()}
        for degrees in (-170.0, -90.0, -33.3, 0.0, 1.0, 45.0, 90.0, 137.0, 180.0):
            found = tensor(ask(browser, "rotated(arguments[0], arguments[1])", given, degrees))
            torch.testing.assert_close(found, geometry.rotate(image[None], torch.tensor([degrees]))[0], **CLOSE)

    @pytest.mark.parametrize("head", ["avg", "max"])
    def test_the_map_of_all_positions_is_torch_s(
        self, browser: Chrome, models: Mapping[tuple[str, str, str], nn.Module], scenes: list[LiveScene], head: str
    ) -> None:
        ask(browser, "scene(1)")
        ask(browser, "head(arguments[0])", head)
        WebDriverWait(browser, PATIENCE).until(
            lambda _: all(n["positions"]["done"] == n["positions"]["of"] for n in ask(browser, "networks()"))
        )
        extent = ask(browser, "state()")["range"]
        one = scenes[1].objects[0]
        ink = torch.from_numpy(np.frombuffer(one.pixels, np.uint8).copy()).view(one.shape)[0] > 0
        height, width = (int(ink.any(axis).sum()) for axis in (1, 0))
        assert (extent["rows"], extent["columns"]) == (CANVAS - height + 1, CANVAS - width + 1)
        base = tensor(ask(browser, "pixels()"))
        rows, columns = (base[0].sum(axis).nonzero()[0, 0] for axis in (1, 0))
        corner = base.roll((-int(rows), -int(columns)), (-2, -1))
        images = torch.stack(
            [corner.roll((y, x), (-2, -1)) for y in range(extent["rows"]) for x in range(extent["columns"])]
        )
        for found in ask(browser, "networks()"):
            with torch.no_grad():
                p = probabilities(models["marks", found["name"], head](images))
            expected = p[:, 2] / (p[:, 2] + p[:, :2].amax(1))
            torch.testing.assert_close(torch.tensor(found["positions"]["values"]), expected, **CLOSE)
            assert found["positions"]["kept"] == int(p.argmax(1).bincount().max())
            kept = found["positions"]["kept"]
            where = f"{kept:,} of {len(images):,} positions" if kept < len(images) else f"all {kept:,} positions"
            assert f"at {where}" in browser.find_element(By.ID, "cards").text

    def test_next_flip_goes_to_a_flip(self, browser: Chrome, start: Mapping[str, Any]) -> None:
        WebDriverWait(browser, PATIENCE).until(
            lambda _: all(n["positions"]["done"] == n["positions"]["of"] for n in ask(browser, "networks()"))
        )
        kept = [found["positions"]["kept"] < found["positions"]["of"] for found in ask(browser, "networks()")]
        browser.find_element(By.ID, "flip").click()
        said = browser.find_element(By.ID, "said").text
        assert re.match(r"Moved 1 px (right|down): .*changed" if any(kept) else "No pair", said), said

    def test_a_narrow_page_does_not_scroll_sideways(self, browser: Chrome, start: Mapping[str, Any]) -> None:
        for width in (1400, 900, 400, 320):
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    @pytest.mark.parametrize("mode", PADDING_MODES)
    def test_every_pool_and_padding_is_torch_s(self, browser: Chrome, mode: str) -> None:
        names = [name for name in pools.names() if pools.get(name) in STEPS]
        assert {*POOLS, "aps", "aps_blur3", "blur7", "strided_conv", "space_to_depth", "dwt", "dense"} <= {*names}
        for name, size, dilation in itertools.product(names, (8, 7), (1, 2)):
            divisible = not pools.get(name).needs_divisible_size  # type: ignore[attr-defined]
            if size == 7 and not divisible:
                continue
            convolution = nn.Conv2d(2, 4, 3, padding=dilation, dilation=dilation, padding_mode=mode, groups=2)
            pool = create_pool(name, 4, padding_mode=mode)  # type: ignore[arg-type]
            layers = [convolution, nn.ELU(), pool, ClassMaps(Component("avg"), 4, (size // 2, size // 2))]
            assert_steps_are_torch_s(browser, nn.Sequential(*layers), (2, size, size + (0 if not divisible else 1)))

    @pytest.mark.parametrize("name", [name for name in heads.names() if heads.get(name) in STEPS])
    def test_every_head_is_torch_s(self, browser: Chrome, name: str) -> None:
        layers = (nn.Conv2d(1, 3, 3, padding="same"), nn.BatchNorm2d(3), nn.ReLU())
        model = nn.Sequential(*layers, ClassMaps(heads.resolve(name), 3, (6, 5)), nn.BatchNorm1d(3), nn.Sigmoid())
        for norm in (model[1], model[4]):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
        assert_steps_are_torch_s(browser, model, (1, 6, 5))

    @pytest.mark.parametrize("name", ["aps", "max_aps", "aps_blur3"])
    def test_equal_norms_are_decided_as_torch_decides(self, browser: Chrome, name: str) -> None:
        pool = create_pool(name, 1, padding_mode="circular")
        model = nn.Sequential(pool, ClassMaps(Component("flatten"), 1, (8, 8)))
        program = export_program(model, (1, 16, 16)).config()
        tied = 0
        # With even sides (odd ones, before a maximum over 2x2) the four grids of a rectangle are equal up to a roll;
        # those of a rectangle with a mark are not.
        for top, left, mark, (height, width) in itertools.product((4, 5), (4, 5), (0, 1), ((6, 4), (5, 7))):
            image = torch.zeros(1, 1, 16, 16)
            image[..., top : top + height, left : left + width] = 1
            image[..., top + 1, left : left + width] -= 0.5 * mark
            scores = pool.components(pool.prepare(image)).square().sum((1, 3, 4))[0]  # type: ignore[operator]
            tied += int((scores > scores.max() * (1 - 1e-5)).sum() > 1)
            given = {"shape": [1, 16, 16], "data": image.flatten().tolist()}
            found = ask(browser, f"evaluate(arguments[0], arguments[1])[{len(program['steps']) - 3}]", program, given)
            with torch.no_grad():
                torch.testing.assert_close(tensor(found), pool(image)[0], **CLOSE)
        assert tied


def assert_steps_are_torch_s(browser: Chrome, model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Compare the outputs of all layers of a sequential network, for one random image."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for module in model.modules():
            if hasattr(module, "reset_parameters") and not isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.reset_parameters()
        image = torch.randn(1, *shape)
    program = export_program(model, shape)
    given = {"shape": list(shape), "data": image.flatten().tolist()}
    found = ask(browser, "evaluate(arguments[0], arguments[1])", program.config(), given)
    last = {step.path: out for step, out in zip(program.steps, found, strict=True)}
    expected = recorded(model, image)
    compared = 0
    for path, out in last.items():
        torch.testing.assert_close(tensor(out), expected[path], **CLOSE)
        compared += isinstance(model.get_submodule(path), Pool | Head)
    assert compared
    torch.testing.assert_close(tensor(found[-1]), expected[""], **CLOSE)


def test_weights_are_little_endian_float32(scenes: list[LiveScene]) -> None:
    step = next(step for step in scenes[0].networks[0].program["steps"] if step["kind"] == "conv")
    values = np.frombuffer(base64.b64decode(step["weight"]["data"]), "<f4").reshape(step["weight"]["shape"])
    expected = network(2, "max", "avg").get_submodule("network.conv1").weight
    np.testing.assert_array_equal(values, expected.detach().numpy())
