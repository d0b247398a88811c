"""Products by oneDNN are those of PyTorch, values and gradients; who computes them is decided by machine and size."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trueup.errors import UserError
from trueup.models.linear import Linear, quicken
from trueup.ops import products

SIZES = st.integers(1, 40)


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every product that may go to oneDNN does, on any machine."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(products, "library", lambda: "onednn")
    monkeypatch.setattr(products, "SMALL", 0)
    yield


def exact(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In float64."""
    return x.double() @ weight.double().T + (0.0 if bias is None else bias.double())


@given(rows=SIZES, inner=SIZES, outer=SIZES, seed=st.integers(0, 9), biased=st.booleans(), batched=st.booleans())
def test_linear_and_its_gradients_are_those_of_float64(
    rows: int, inner: int, outer: int, seed: int, biased: bool, batched: bool
) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape = (2, rows, inner) if batched else (rows, inner)
    x, weight = torch.randn(shape, generator=rng), torch.randn(outer, inner, generator=rng)
    bias = torch.randn(outer, generator=rng) if biased else None
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias) if leaf is not None]
    found, expected = products.linear(x, weight, bias), exact(x, weight, bias)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    slope = torch.randn(found.shape, generator=rng)
    ours = torch.autograd.grad(found, leaves, slope)
    theirs = torch.autograd.grad(expected, leaves, slope.double())
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@given(rows=SIZES, inner=SIZES, columns=SIZES, turned=st.tuples(st.booleans(), st.booleans()))
def test_a_product_of_views_is_that_of_their_values(
    rows: int, inner: int, columns: int, turned: tuple[bool, bool]
) -> None:
    """Transposed and cut operands come up in every backward pass."""
    a = torch.randn(inner, rows + 3)[:, 3:].T if turned[0] else torch.randn(rows, inner + 3)[:, 3:]
    b = torch.randn(columns, inner).T if turned[1] else torch.randn(inner, columns)
    torch.testing.assert_close(products.product(a, b), a.contiguous() @ b.contiguous(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(products.outer(a.T, b), a.contiguous() @ b.contiguous(), rtol=1e-5, atol=1e-5)


@given(st.integers(1, 100_000))
def test_few_sizes_reach_onednn(rows: int) -> None:
    """Code is made and kept for each: eight an octave, at most an eighth larger than asked for; small ones by 7."""
    room = products._room(rows)
    assert rows <= room <= max(rows * 1.125, rows + 7)
    assert products._room(room) == room
    assert len({products._room(n) for n in range(64, 4096)}) <= 8 * 6 + 1


def test_the_gradient_of_a_sum_is_no_real_matrix_and_is_taken() -> None:
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    products.linear(x, weight).sum().backward()
    assert x.grad is not None and weight.grad is not None
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(6, 5))
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(4, 5))


def test_frozen_operands_get_no_gradient() -> None:
    x, weight = torch.randn(6, 5), torch.randn(4, 5, requires_grad=True)
    products.linear(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None
    with torch.no_grad():
        assert not products.linear(x, weight).requires_grad


def test_second_derivatives_are_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hessian times a vector, where the input is also reached past the layer."""

    def curvature() -> Tensor:
        x, weight = torch.linspace(-1, 1, 30).view(6, 5).requires_grad_(), torch.linspace(1, 2, 25).view(5, 5)
        loss = (products.linear(x, weight) * x).tanh().sum()
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    found = curvature()
    monkeypatch.setattr(products, "library", lambda: "torch")
    torch.testing.assert_close(found, curvature(), rtol=1e-4, atol=1e-5)


def test_transforms_and_autocast_are_pytorch_s_own() -> None:
    x, weight = torch.randn(6, 5), torch.randn(4, 5)
    slope = torch.func.grad(lambda own: products.linear(own, weight).sum())(x)
    torch.testing.assert_close(slope, weight.sum(0).expand(6, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_pytorch_s_own(dtype: torch.dtype) -> None:
    x, weight = torch.randn(6, 5, dtype=dtype), torch.randn(4, 5, dtype=dtype)
    assert torch.equal(products.linear(x, weight), torch.nn.functional.linear(x, weight))


def test_small_products_are_pytorch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALL", 6 * 5 * 4 + 1)
    monkeypatch.setattr(products, "_onednn", lambda *_: pytest.fail("went to oneDNN"))
    products.linear(torch.randn(6, 5), torch.randn(4, 5))
    products.product(torch.randn(6, 5), torch.randn(5, 4))


@pytest.mark.parametrize("asked", ["torch", "onednn"])
def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.undo()
    monkeypatch.setenv(products.VARIABLE, asked)
    products.library.cache_clear()
    assert products.library() == asked
    products.library.cache_clear()
    monkeypatch.setenv(products.VARIABLE, "mkl")
    with pytest.raises(UserError, match=r"takes torch or onednn"):
        products.library()


def test_a_quickened_model_is_the_same_model() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3, bias=False))
    before, names = model(torch.ones(2, 5)), list(model.state_dict())
    quicken(model)
    assert [type(layer) for layer in model] == [Linear, nn.ReLU, Linear]
    assert list(model.state_dict()) == names and isinstance(model[0], nn.Linear)
    torch.testing.assert_close(model(torch.ones(2, 5)), before, rtol=1e-5, atol=1e-6)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.zero_()
    torch.testing.assert_close(model(torch.ones(2, 5)), before, rtol=1e-5, atol=1e-6)
