"""A new pool is one file: the contract tests cover it without an edit anywhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

POOL = '''
from torch import Tensor

from poolbench.pooling import Pool
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import complete, window_mean
from poolbench.registry import pools


@pools.register("planted", reference="this test", shift_equivariant=False, learnable=False, random=False)
class PlantedPool(Pool):
    """Mean of the absolute values of a window, to a power."""

    {capability}

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros", exponent: float = 2.0
    ) -> None:
        super().__init__()
        self.stride, self.padding_mode, self.exponent = stride, padding_mode, exponent

    def forward(self, x: Tensor) -> Tensor:
        return window_mean(complete(x, self.stride, self.padding_mode).abs() ** self.exponent, self.stride)
'''


@pytest.mark.parametrize(
    ("capability", "failures"),
    [("keeps_constants = False", ""), ("keeps_constants = True", "test_constants")],
)
def test_the_contract_reads_the_attributes_of_a_new_pool(capability: str, failures: str, tmp_path: Path) -> None:
    spec = find_spec("poolbench")
    assert spec is not None
    assert spec.submodule_search_locations
    shutil.copytree(spec.submodule_search_locations[0], tmp_path / "poolbench")
    (tmp_path / "poolbench" / "pooling" / "planted.py").write_text(POOL.replace("{capability}", capability))
    contract = shutil.copy(Path(__file__).parent / "test_pools.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-k", "planted", "-p", "no:cacheprovider", str(contract)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert " passed" in done.stdout, done.stdout
    assert (failures in done.stdout) if failures else done.returncode == 0, done.stdout
