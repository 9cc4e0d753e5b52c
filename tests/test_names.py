"""Names that would leave the work folder are refused where they are declared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench import registry
from poolbench.core import DataLocation, UsageError
from poolbench.data.folder import image_folder
from poolbench.names import file_name
from poolbench.task import Benchmark, Figure
from poolbench_tracking.mlflow_store import folder_name

BAD = (
    "", ".", "..", "../x", "a/b", "/etc", "a\\b", "C:x", "a\0b", "a\nb", "CON", "con.txt", "Lpt1", "a.", "a ",
    ".hidden", "x" * 151, "é" * 80, "\udcff", "<a>", "a|b", "a?", "*",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_file_name_is_refused(name: str, tiny: Benchmark) -> None:
    with pytest.raises(UsageError, match="choose another name"):
        file_name(name, "the name")
    entries: registry.Registry[object] = registry.Registry("pool", "poolbench.pooling", "pools")
    with pytest.raises(UsageError, match="choose another name"):
        entries.register(name)(object())
    for changes in ({"name": name}, {"maps": (name,)}, {"figures": (Figure(name, "", ""),)}, {"presets": {name: ()}}):
        with pytest.raises(UsageError, match="choose another name"):
            replace(tiny, **changes)  # type: ignore[arg-type]


def test_registered_names_are_file_names() -> None:
    for entries in (registry.benchmarks, registry.datasets, registry.architectures, registry.pools, registry.heads):
        assert [file_name(name, "") for name in entries.names()]


@settings(derandomize=True, deadline=None, database=None)
@given(st.text(max_size=20) | st.text(alphabet="./\\ab:\0 ", max_size=8))
def test_an_accepted_name_is_one_part_of_a_path(name: str) -> None:
    for made in (folder_name(f"study (tuning) {name}"), name):
        try:
            file_name(made, "")
        except UsageError:
            assert made == name
            continue
        path = Path("/work") / f"{made}.parquet"
        assert path.resolve().parent == Path("/work")
        assert path.name == f"{made}.parquet"


@pytest.mark.parametrize("folder", ["..", "../other", "a/../../b", "/etc"])
def test_image_folders_are_inside_the_data_folder(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not inside the data folder"):
        image_folder(DataLocation(str(tmp_path)), "cpu", folder=folder)
