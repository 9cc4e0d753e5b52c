"""The contract of every registered head, read from the attributes of its class; then each against its definition."""

from __future__ import annotations

import itertools
from math import exp, log
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from poolbench.core import Component, UsageError
from poolbench.engine.build import initialise
from poolbench.pooling import Head, create_head, list_heads
from poolbench.registry import heads

by_name = pytest.mark.parametrize("name", list_heads())


def made(name: str, channels: int = 3, size: tuple[int, int] = (4, 5), **options: Any) -> Head:
    torch.manual_seed(0)
    return create_head(name, channels, size=size, **options).double().eval()


def maps(*shape: int, seed: int = 1) -> Tensor:
    # Positive, as after a ReLU: gem clamps negative values.
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1


@by_name
def test_output_size_dtype_device_and_repetition(name: str) -> None:
    head, x = made(name), maps(2, 3, 4, 5)
    out = head(x)
    assert out.shape == (2, 3 * head.feature_multiplier)
    assert out.dtype == torch.float64
    assert torch.equal(out, head(x))
    torch.testing.assert_close(head(x.contiguous(memory_format=torch.channels_last)), out)
    torch.testing.assert_close(head.float()(x.float()), out.float())
    assert head.to("meta")(x.float().to("meta")).device.type == "meta"


@by_name
def test_class_maps_and_single_pixels(name: str) -> None:
    for channels, size in itertools.product([1, 10, 128], [(1, 1), (1, 2), (3, 3)]):
        head, x = made(name, channels, size), maps(2, channels, *size)
        out = head(x)
        assert out.shape == (2, channels * head.feature_multiplier)
        assert torch.isfinite(out).all()
        if size == (1, 1) and head.keeps_constants:
            torch.testing.assert_close(out, x.flatten(1).repeat(1, head.feature_multiplier))


@by_name
@pytest.mark.parametrize("channels", [1, 2])
def test_gradients(name: str, channels: int) -> None:
    head = made(name, channels, (3, 3))
    x = maps(1, channels, 3, 3).requires_grad_()
    parameters = dict(head.named_parameters())

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(head, dict(zip(parameters, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(apply, (x, *parameters.values()))


@by_name
@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_learns(name: str, training: bool) -> None:
    for channels in (1, 3):
        head = made(name, channels).train(training)
        head(maps(4, channels, 4, 5).requires_grad_()).square().sum().backward()
        for path, parameter in head.named_parameters():
            assert parameter.grad is not None, path
            assert parameter.grad.abs().sum() > 1e-9, path


@by_name
def test_half_precision(name: str) -> None:
    head = made(name).float()
    for x in (maps(2, 3, 4, 5).float(), maps(2, 3, 4, 5).bfloat16(), torch.zeros(2, 3, 4, 5)):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = head(x)
        out.float().square().sum().backward()
        assert x.grad is not None
        assert torch.isfinite(out).all()
        assert torch.isfinite(x.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@by_name
def test_facts(name: str) -> None:
    facts = heads.entry(name).facts
    assert set(facts) == {"reference", "shift_equivariant", "learnable", "random"}
    head, x = made(name), maps(2, 3, 4, 5)
    assert bool(list(head.parameters())) == facts["learnable"]
    out = head(x)
    stays = [
        torch.allclose(head(torch.roll(x, by, dims=(-2, -1))), out, rtol=1e-12)
        for by in itertools.product(range(4), range(5))
    ]
    assert all(stays) == facts["shift_equivariant"]
    head.train()
    assert torch.equal(head(x), head(x)) != facts["random"]


@by_name
def test_constants(name: str) -> None:
    head = made(name)
    out = head(torch.full((1, 3, 4, 5), 0.7, dtype=torch.float64))
    assert torch.allclose(out, torch.full_like(out, 0.7)) == head.keeps_constants


def test_no_two_heads_are_the_same() -> None:
    x = maps(1, 3, 4, 5)
    outputs = {name: made(name)(x) for name in list_heads()}
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.equal(outputs[first], outputs[second]), (first, second)


@by_name
def test_parameters_follow_from_the_seed_and_the_path(name: str) -> None:
    torch.manual_seed(1)
    first = create_head(name, 3, size=(4, 5))
    torch.manual_seed(2)
    second = create_head(name, 3, size=(4, 5))
    for head in (first, second):
        initialise(head, 7)
    for path, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(path)), path


@by_name
def test_heads_that_need_a_size(name: str) -> None:
    if made(name).needs_size:
        with pytest.raises(UsageError, match=f"head '{name}' needs the size"):
            create_head(name, 3)
    else:
        assert create_head(name, 3)(maps(2, 3, 4, 5).float()).shape[0] == 2


def test_a_component_carries_options() -> None:
    assert float(create_head(Component("gem", {"p": 4.0}), 3).get_parameter("p").detach()) == 4
    with pytest.raises(UsageError, match="unknown top_k option 'p'"):
        create_head("top_k", 3, p=2)


def test_gem_runs_from_the_mean_to_the_maximum() -> None:
    x = maps(2, 3, 4, 5)
    for p, expected, tolerance in ((1.0, x.mean(dim=(-2, -1)), 1e-12), (2000.0, x.amax(dim=(-2, -1)), 2e-3)):
        torch.testing.assert_close(made("gem", p=p)(x), expected, rtol=tolerance, atol=0)


def test_gem_against_a_double_loop() -> None:
    x = maps(2, 2, 3, 4)
    out = made("gem", 2)(x)
    for i, c in itertools.product(range(2), range(2)):
        total = sum(float(x[i, c, y, z]) ** 3 for y in range(3) for z in range(4))
        assert float(out[i, c].detach()) == pytest.approx((total / 12) ** (1 / 3), rel=1e-12)


def test_gem_is_finite_in_half_precision_and_on_zeros() -> None:
    head = create_head("gem", 3, p=30.0)
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    head(x).sum().backward()
    assert head.p.grad is not None
    assert torch.isfinite(head.p.grad)
    assert torch.isfinite(head((maps(1, 3, 4, 4) * 1000).half())).all()


def test_mean_and_maximum_together() -> None:
    x = maps(2, 3, 4, 5)
    mean, top = made("avg")(x), made("max")(x)
    torch.testing.assert_close(made("avgmax")(x), (mean + top) / 2)
    assert torch.equal(made("catavgmax")(x), torch.cat((mean, top), 1))


def test_l2_is_a_root_mean_square_with_a_finite_gradient() -> None:
    x = maps(2, 3, 4, 5) - 0.6
    torch.testing.assert_close(made("l2")(x), torch.linalg.vector_norm(x, dim=(-2, -1)) / 20**0.5)
    dark = torch.zeros(1, 1, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(create_head("l2", 1)(dark).sum(), dark)
    assert gradient.flatten().tolist() == [0, 0, 0, 0]


def test_lse_against_a_double_loop() -> None:
    x = maps(2, 2, 3, 4) - 0.6
    head = made("lse", 2, r=3.0)
    r = exp(float(head.get_parameter("log_r").detach()))
    assert r == pytest.approx(3, rel=1e-6)
    out = head(x)
    for i, c in itertools.product(range(2), range(2)):
        total = sum(exp(r * float(x[i, c, y, z])) for y in range(3) for z in range(4))
        assert float(out[i, c].detach()) == pytest.approx(log(total / 12) / r, rel=1e-10)


def test_lse_runs_from_the_mean_to_the_maximum() -> None:
    x = maps(2, 3, 4, 5) * 10
    mean, top = x.mean(dim=(-2, -1)), x.amax(dim=(-2, -1))
    torch.testing.assert_close(made("lse", r=1e-12)(x), mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(made("lse", r=1e6)(x), top, rtol=1e-5, atol=0)
    between = made("lse", r=1.0)(x)
    assert ((mean < between) & (between < top)).all()


def test_lse_does_not_overflow() -> None:
    head = create_head("lse", 1, r=10.0)
    out = head(torch.tensor([[[[1e4, -1e4]]]]))
    out.sum().backward()
    assert float(out.detach()) == pytest.approx(1e4 + log(0.5) / 10)
    assert head.log_r.grad is not None
    assert torch.isfinite(head.log_r.grad)


def test_top_k_runs_from_the_maximum_to_the_mean() -> None:
    x = maps(2, 3, 4, 5)
    assert torch.equal(made("top_k", k=1)(x), made("max")(x))
    torch.testing.assert_close(made("top_k", k=20)(x), made("avg")(x))
    torch.testing.assert_close(made("top_k")(x), x.flatten(2).sort(descending=True).values[..., :5].mean(2))


def test_median_against_the_standard_library() -> None:
    for size in ((3, 3), (4, 5), (1, 1)):
        x = maps(2, 3, *size)
        expected = [median(row) for row in x.flatten(2).flatten(0, 1).tolist()]
        assert made("median")(x).flatten().tolist() == pytest.approx(expected, rel=1e-15)


def test_softmax_weighted_against_a_double_loop() -> None:
    x = maps(2, 2, 3, 4)
    out = made("softmax_weighted", 2)(x)
    for i, c in itertools.product(range(2), range(2)):
        values = x[i, c].flatten().tolist()
        expected = sum(v * exp(v) for v in values) / sum(exp(v) for v in values)
        assert float(out[i, c]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("channels", [1, 4])
def test_simpool_is_attention_from_the_mean(channels: int) -> None:
    head, x = made("simpool", channels), maps(2, channels, 3, 4)
    positions = x.flatten(2).transpose(1, 2)
    scaled = positions
    if channels > 1:
        centred = positions - positions.mean(2, keepdim=True)
        scaled = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
    query = head.get_parameter("query.weight") @ positions.mean(1).T
    keys = scaled @ head.get_parameter("key.weight").T
    expected = F.scaled_dot_product_attention(query.T.unsqueeze(1), keys, positions).squeeze(1)
    torch.testing.assert_close(head(x), expected)


def test_simpool_without_a_query_is_avg() -> None:
    head, x = made("simpool"), maps(2, 3, 4, 5)
    torch.nn.init.zeros_(head.get_parameter("query.weight"))
    torch.testing.assert_close(head(x), made("avg")(x))


@pytest.mark.parametrize("channels", [6, 128])
def test_attention_is_the_attention_pool_of_timm(channels: int) -> None:
    from timm.layers.attention_pool2d import AttentionPool2d

    own, x = made("attention", channels), maps(2, channels, 4, 5)
    theirs = AttentionPool2d(channels, (4, 5), num_heads=2 if channels == 128 else 1).double().eval()
    with torch.no_grad():
        theirs.pos_embed.copy_(own.get_parameter("places"))
        weights, biases = (
            [own.get_parameter(f"{part}.{kind}") for part in parts]
            for kind, parts in (("weight", ("query", "key", "value")), ("bias", ("query", "value")))
        )
        theirs.get_parameter("qkv.weight").copy_(torch.cat(weights))
        theirs.get_parameter("qkv.bias").copy_(torch.cat((biases[0], torch.zeros_like(biases[0]), biases[1])))
        for kind in ("weight", "bias"):
            theirs.get_parameter(f"proj.{kind}").copy_(own.get_parameter(f"out.{kind}"))
    torch.testing.assert_close(own(x), theirs(x))


def test_attention_without_positional_embeddings_is_shift_invariant() -> None:
    head, x = made("attention"), maps(2, 3, 4, 5)
    torch.nn.init.zeros_(head.get_parameter("places"))
    torch.testing.assert_close(head(torch.roll(x, (1, 2), (-2, -1))), head(x))


def test_bad_arguments_are_answered() -> None:
    for name, option, value in (("gem", "p", 0.0), ("lse", "r", 0.0), ("top_k", "k", 0)):
        with pytest.raises(UsageError, match=f"head '{name}' needs .* got 0"):
            create_head(name, 3, **{option: value})
    with pytest.raises(UsageError, match="cannot take the 30 largest of 20 positions; give a k up to 20"):
        made("top_k", k=30)(maps(1, 3, 4, 5))
