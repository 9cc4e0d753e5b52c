"""Batched outputs, and the hooks that record what modules take and give."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poolbench.recording import CPU_ELEMENTS, batch_size, outputs, recorded


def network() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), act=nn.ReLU(inplace=True)))
    return nn.Sequential(OrderedDict(block=block, drop=nn.Dropout(), flat=nn.Flatten(), out=nn.Linear(72, 3)))


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_batch_has_a_bounded_number_of_elements_and_at_least_one_image() -> None:
    assert batch_size(torch.zeros(5, 1, 16, 16)) == CPU_ELEMENTS // 256
    assert batch_size(torch.zeros(1, 3, 500, 500)) == 1


def test_outputs_are_those_of_one_pass_in_eval_mode() -> None:
    model, x = network(), torch.rand(1100, 1, 8, 8)
    x = x.repeat(3, 1, 1, 1)  # more than one batch
    assert len(x) > batch_size(x)
    model.train()
    found = outputs(model, x)
    assert not model.training
    assert not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found, model(x))


def test_outputs_of_given_batches_are_those_of_all_images() -> None:
    model, x = network(), torch.rand(10, 1, 8, 8)
    torch.testing.assert_close(outputs(model, (part * 2 for part in x.split(3))), outputs(model, x * 2))


def test_modules_are_recorded_in_order_of_execution() -> None:
    model, x = network().eval(), torch.rand(2, 1, 8, 8)
    calls: list[tuple[str, Tensor, Tensor]] = []
    starts: list[Tensor] = []

    def keep(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        calls.append((path, inputs[0].detach().clone(), output.detach().clone()))

    with recorded(model, ["out", "", "block.act", "block.conv"], keep, lambda inputs: starts.append(inputs[0])):
        final = model(x)
        model(x + 1)
    assert [path for path, _, _ in calls] == ["block.conv", "block.act", "out", ""] * 2
    assert torch.equal(starts[0], x)
    assert torch.equal(starts[1], x + 1)
    (_, first, convolved), (_, _, activated), (_, flat, _), (_, whole, output) = calls[:4]
    assert torch.equal(first, x)
    assert torch.equal(whole, x)
    # Copied before the in-place activation ran.
    assert float(convolved.min()) < 0
    assert torch.equal(activated, convolved.relu())
    assert torch.equal(flat, activated.flatten(1))
    assert torch.equal(output, final)


def test_no_hook_is_left_behind() -> None:
    model = network()
    paths = [path for path, _ in model.named_modules()]
    with recorded(model, paths, lambda *call: None, lambda inputs: None):
        assert hooks_of(model) == len(paths) + 1
    assert hooks_of(model) == 0

    def fail(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), recorded(model, paths, fail):
        model(torch.rand(2, 1, 8, 8))
    assert hooks_of(model) == 0
    with pytest.raises(AttributeError), recorded(model, ["block", "absent"], fail):
        pass
    assert hooks_of(model) == 0
