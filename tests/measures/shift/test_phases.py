"""All shifts of a period, layer by layer, against one forward pass per shift."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift
from poolbench.measures.shift.phases import layer_chain, period_by_layers, strides_of
from poolbench.pooling import create_pool


def images(count: int, size: int = 32, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


class Counted(nn.Module):
    """A layer that counts the elements it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.elements = layer, 0

    def forward(self, x: Tensor) -> Tensor:
        self.elements += x.numel()
        result: Tensor = self.layer(x)
        return result


@pytest.mark.parametrize("pool", ["max", "max_blur3", "aps", "strided_conv"])
@pytest.mark.parametrize(("architecture", "stride"), [("vgg_like", 16), ("resnet20", 4), ("all_convolutional", 4)])
def test_all_shifts_of_a_period_against_one_pass_per_shift(architecture: str, stride: int, pool: str) -> None:
    torch.manual_seed(0)
    model = create_model(architecture, (1, 32, 32), 10, pool, "avg", "circular", width=4).double().eval()
    x = images(2).double()
    found = period_by_layers(model, x, stride)
    assert found is not None
    with torch.no_grad():
        for dy in range(0, stride, 3):
            for dx in range(stride):
                direct = model(torch.roll(x, (dy, dx), dims=(-2, -1)))
                torch.testing.assert_close(found[dy, dx], direct, rtol=1e-9, atol=1e-12)


def test_layers_before_a_stride_run_once() -> None:
    first, second = Counted(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")), Counted(nn.ReLU())
    pool = create_pool("max", 2, padding_mode="circular")
    model = nn.Sequential(first, nn.Sequential(pool, second), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = period_by_layers(model, images(8), 2)
    # 8 images, and 1 that finds the strides; behind the pool 4 shifts of maps of a quarter of the size, 2 channels.
    assert first.elements == (8 + 1) * 1024
    assert second.elements == (8 * 4 + 1) * 2 * 256
    torch.testing.assert_close(found, shift.shifted_logits(model, images(8), range(2), range(2)))


def test_what_is_no_chain_of_moving_layers_is_evaluated_shift_by_shift() -> None:
    whole = create_model("vgg_like", (1, 32, 32), 10, "max", "avg", "circular", width=2, hidden=4)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = whole

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.model(x)
            return result

    model = Wrapped().eval()
    assert len(layer_chain(whole)) > 20
    assert layer_chain(model) == [model]
    assert period_by_layers(model, images(2), 16) is None
    torch.testing.assert_close(shift.period_of_logits(model, images(2), 16), period_by_layers(whole, images(2), 16))
    # 7 -> 3 is no whole stride.
    assert strides_of([nn.MaxPool2d(2)], images(1, 7)) is None
    # A total stride that the layers do not have.
    assert period_by_layers(whole, images(2), 8) is None


def test_a_chain_that_does_not_move_with_its_input_is_found_out() -> None:
    """Zero padding around an object on black: periodic as a whole, but its layers do not wrap around."""
    torch.manual_seed(1)
    model = create_model("shape_net", (1, 32, 32), 2, "max", "avg", "zeros", num_pooling=2).eval()
    x = torch.zeros(3, 1, 32, 32)
    x[:, :, 12:17, 12:19] = images(3, 7)[:, :, :5]
    layers = period_by_layers(model, x, 4)
    assert layers is not None
    direct = shift.shifted_logits(model, x, range(4), range(4))
    assert float((layers - direct).abs().max()) > 1e-3
    assert torch.equal(shift.period_of_logits(model, x, 4), direct)
