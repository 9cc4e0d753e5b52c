"""Every pool runs outside of Python: torch.export and ONNX give the numbers of the module."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.pooling import create_pool, list_pools

onnxruntime = pytest.importorskip("onnxruntime")

Outputs = dict[str, Tensor]


class EveryPool(nn.Module):
    """Maps (b, 3, h, w) to the outputs of all pools, in the order of their names. One export of all is the fastest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pools = nn.ModuleList(create_pool(name, 3, padding_mode="circular") for name in list_pools())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(pool(x) for pool in self.pools)


def maps(tied: bool) -> Tensor:
    """Return maps (2, 3, 8, 12): noise, or images whose polyphase components have equal norms in pairs."""
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    return x + x.flip(-1) if tied else x


@pytest.fixture(scope="module")
def exported() -> list[tuple[Outputs, Outputs, Outputs]]:
    """Return for noise and for ties the outputs by name: of the modules, by torch.export, by onnxruntime."""
    network = EveryPool().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter and onnxscript warn about their own code
        program = torch.export.export(network, (maps(tied=False),))
        onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    found = []
    with torch.no_grad():
        for x in (maps(tied=False), maps(tied=True)):
            by_onnx = [torch.from_numpy(out) for out in session.run(None, {source.name: x.numpy()})]
            found.append((named(network(x)), named(program.module()(x)), named(by_onnx)))
    return found


def named(outputs: Sequence[Tensor]) -> Outputs:
    return dict(zip(list_pools(), outputs, strict=True))


@pytest.mark.parametrize("name", list_pools())
def test_exported_pools_give_the_same_numbers(name: str, exported: list[tuple[Outputs, Outputs, Outputs]]) -> None:
    for expected, by_torch, by_onnx in exported:
        assert torch.equal(by_torch[name], expected[name])
        np.testing.assert_allclose(by_onnx[name], expected[name], rtol=1e-5, atol=1e-6)
