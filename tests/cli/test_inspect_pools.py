"""inspect pools: the table and the path on stdout, the files, and each mistake as one line with exit code 2."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from PIL import Image

Cli = Callable[..., Result]
POOLS = ("inspect", "pools", "--out", "out")


class Page(HTMLParser):
    """The addresses that a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_sample_is_drawn_and_the_numbers_agree(tmp_path: Path, cli: Cli) -> None:
    done = cli(*POOLS, "--pool", "max,max_blur3,gem_local:p=4", "--pool", "aps,max", "--size", "64")
    assert done.exit_code == 0, done.stderr
    assert "4 of 4 pools" in done.stderr
    assert "left out" not in done.stderr
    header, *rows, path = (line.split() for line in done.stdout.splitlines())
    assert header == ["pool", "weights", "size", "window", "torus", "halves", "contrast"]
    assert path == ["out/index.html"]
    told = {row[0]: row[1:] for row in rows}
    assert set(told) == {"max", "max_blur3", "gem_local:p=4.0", "aps"}
    assert told["gem_local:p=4.0"][0] == "initial"
    assert told["max"][0] == "-"
    assert told["aps"][3] == "0"

    table = pd.read_csv(tmp_path / "out" / "pools.csv").set_index("pool")
    assert list(table.index) == [row[0] for row in rows]
    for name, (_, size, window, torus, halves, contrast) in told.items():
        row = table.loc[name]
        assert size == f"{row['width']}x{row['height']}"
        numbers = [row[column] for column in ("change", "circular", "halves")]
        for text, number in zip((window, torus, halves), numbers, strict=True):
            assert float(text) == pytest.approx(number, abs=0.0005)
        assert float(contrast) == pytest.approx(row["contrast"], abs=0.005)
        assert row["change_least"] <= row["change"] <= row["change_most"]
    assert set(table["windows"]) == {9}

    text = (tmp_path / "out" / "index.html").read_text()
    sources = Page(text).sources
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "the cat of the package, 64 x 64 px" in text
    for name in told:
        assert f"<th>{name}</th>" in text
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "index.html", "pools.csv", "pools.png", "sequence.png", "step.png"
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "sequence.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 900


def test_the_default_takes_the_pools_without_random_weights_and_says_so(cli: Cli) -> None:
    done = cli(*POOLS, "--size", "48")
    assert done.exit_code == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()[1:-1]}
    assert {"max", "dense", "max_aps_blur3", "mixed"} <= names
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("left out")]
    left_out = set(re.findall(r"\w+", line.partition(": ")[2].partition(";")[0]))
    assert "strided_conv" in left_out
    assert not left_out & names
    every = cli(*POOLS, "--size", "48", "--pool", "all")
    assert {line.split()[0] for line in every.stdout.splitlines()[1:-1]} == names | left_out
    page = Path("out/index.html").read_text()
    assert "<td>random</td>" in page
    assert "drawn at random (seed 0)" in page


def test_names_of_files_are_text_on_the_page(tmp_path: Path, cli: Cli) -> None:
    Image.effect_noise((60, 60), 50).save(tmp_path / "<b>.png")
    done = cli("inspect", "pools", "<b>.png", "--out", "out", "--pool", "max", "--filter", "sobel_45")
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;.png, 60 x 60 px" in page
    assert "<b>.png" not in page
    assert "brightness that increases to the upper right" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.png",), "'absent.png' does not exist; give a PNG or JPEG"),
        (("--pool", "maxx"), "unknown pool 'maxx'; did you mean 'max"),
        (("--pool", "gem_local:p=0"), "needs a power p > 0"),
        (("--pool", ","), "--pool names no pool; give some"),
        (("--filter", "edge"), "unknown filter 'edge'; did you mean 'edges'?"),
        (("--size", "20"), "20 is not in the range 48<=x<=512"),
        (("flat.png", "--pool", "max"), "finds nothing in this photograph"),
        (("--out", "flat.png", "--pool", "max"), "cannot write to 'flat.png'"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    Image.new("RGB", (60, 60), "grey").save(tmp_path / "flat.png")
    given = arguments if "--out" in arguments else (*arguments, "--out", "out")
    done = cli("inspect", "pools", *given)
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if "of 1 pools" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert done.stdout == ""
