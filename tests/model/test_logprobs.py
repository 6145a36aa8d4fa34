"""The chunked head: log-softmax, its entropy and both gradients, without ever holding [tokens, vocabulary]."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from strop.model import logprobs as head
from strop.model.logprobs import token_logprobs

VOCAB, WIDTH = 50, 12
CHUNK, TILE = 64, 16


@pytest.fixture(autouse=True, params=["kept", "made again"])
def small_tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Tiles small enough that these cases cross their borders both ways, kept for the backward or not."""
    monkeypatch.setattr(head, "TOKENS", CHUNK)
    monkeypatch.setattr(head, "VOCABULARY", TILE)
    if request.param == "made again":
        monkeypatch.setattr(head, "KEPT", 0)


def case(num_tokens: int, *, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    hidden = (scale * torch.randn(num_tokens, WIDTH, generator=generator)).to(dtype).requires_grad_()
    weight = torch.randn(VOCAB, WIDTH, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(VOCAB, (num_tokens,), generator=generator)


def plain(hidden: Tensor, weight: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same in float64 with everything held."""
    logits = hidden.double() @ weight.double().t() / temperature
    logprobs = logits.log_softmax(-1)
    correct = (logits.argmax(-1) == target).float()
    return logprobs.gather(-1, target[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1), correct


@pytest.mark.parametrize("num_tokens", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("stats", [False, True])
def test_values_and_gradients(num_tokens: int, temperature: float, stats: bool) -> None:
    tensors = case(num_tokens)
    hidden, weight, _ = tensors
    logprobs, entropy, correct = token_logprobs(*tensors, temperature=temperature, stats=stats)
    want, want_entropy, want_correct = plain(*tensors, temperature)
    torch.testing.assert_close(logprobs.double(), want, rtol=1e-5, atol=1e-5)
    a, b = torch.linspace(-1, 2, num_tokens), torch.linspace(3, -1, num_tokens)
    loss, want_loss = (a * logprobs).sum(), (a * want).sum()
    if stats:
        torch.testing.assert_close(entropy.double(), want_entropy, rtol=1e-5, atol=1e-5)
        assert torch.equal(correct, want_correct) and not correct.requires_grad
        loss, want_loss = loss + (b * entropy).sum(), want_loss + (b * want_entropy).sum()
    else:
        assert entropy.shape == correct.shape == (0,)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(want_loss, (hidden, weight)), strict=True
    ):
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * max(size, 1.0))


def test_gradient_of_the_entropy_alone() -> None:
    hidden, weight, target = case(7)
    _, entropy, _ = token_logprobs(hidden, weight, target, stats=True)
    (ours,) = torch.autograd.grad(entropy.sum(), hidden)
    (theirs,) = torch.autograd.grad(plain(hidden, weight, target, 1.0)[1].sum(), hidden)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)
    assert float(ours.abs().max()) > 0.1


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_side_that_wants_no_gradient_gets_none(frozen: str) -> None:
    tensors = dict(zip(("hidden", "weight", "target"), case(5), strict=True))
    tensors[frozen] = tensors[frozen].detach()
    other = "weight" if frozen == "hidden" else "hidden"
    logprobs, _, _ = token_logprobs(**tensors)
    (ours,) = torch.autograd.grad(logprobs.sum(), tensors[other])
    (theirs,) = torch.autograd.grad(plain(*tensors.values(), 1.0)[0].sum(), tensors[other])
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


def test_logits_of_ten_thousand_are_finite() -> None:
    hidden, weight, target = case(9, scale=3e3)
    logprobs, entropy, _ = token_logprobs(hidden, weight, target, stats=True)
    grads = torch.autograd.grad(logprobs.sum() + entropy.sum(), (hidden, weight))
    assert float((hidden @ weight.t()).abs().max()) > 1e4
    assert all(bool(x.isfinite().all()) for x in (logprobs, entropy, *grads))
    torch.testing.assert_close(logprobs.double(), plain(hidden, weight, target, 1.0)[0], rtol=1e-5, atol=1e-2)


def test_uniform_logits() -> None:
    logprobs, entropy, correct = token_logprobs(
        torch.zeros(3, WIDTH), torch.randn(VOCAB, WIDTH), torch.tensor([0, 4, 49]), stats=True
    )
    expected = torch.log(torch.tensor(float(VOCAB)))
    torch.testing.assert_close(logprobs, -expected.expand(3))
    torch.testing.assert_close(entropy, expected.expand(3))
    assert correct.tolist() == [1.0, 1.0, 1.0], "all are likeliest"


def test_bf16_products_are_reduced_in_fp32() -> None:
    hidden, weight, target = case(300, dtype=torch.bfloat16)
    logprobs, entropy, _ = token_logprobs(hidden, weight, target, stats=True)
    assert logprobs.dtype == entropy.dtype == torch.float32
    logits = (hidden @ weight.t()).float()  # rounded once, by the product
    want = logits.log_softmax(-1)
    torch.testing.assert_close(logprobs, want.gather(-1, target[:, None])[:, 0], rtol=0, atol=1e-5)
    logprobs.sum().backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    (exact,) = torch.autograd.grad(plain(hidden, weight, target, 1.0)[0].sum(), hidden)
    assert float((hidden.grad - exact).norm() / exact.norm()) < 0.02


class Largest(TorchDispatchMode):
    """The most entries any tensor had that an operator gave."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_times_vocabulary_never_exists(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit neither forward nor backward holds more than a tile of logits, whatever the number of tokens."""
    num_tokens = 4 * CHUNK
    monkeypatch.setattr(head, "KEPT", num_tokens * VOCAB - 1)
    hidden, weight, target = case(num_tokens, dtype=dtype)
    with Largest() as largest:
        logprobs, entropy, _ = token_logprobs(hidden, weight, target, temperature=0.9, stats=True)
        (logprobs.sum() + entropy.sum()).backward()
    assert largest.numel < num_tokens * VOCAB // 4
    assert largest.numel == max(CHUNK * TILE, num_tokens * WIDTH)


class Products(TorchDispatchMode):
    """Where the results of all matrix products stand."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "mm" in str(func):
            self.places.append(out.data_ptr())
        return out


@pytest.mark.parametrize(("limit", "products"), [(CHUNK * VOCAB, 3), (CHUNK * VOCAB - 1, 4)])
def test_kept_logits_are_not_made_again(limit: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "KEPT", limit)
    with Products() as seen:
        token_logprobs(*case(CHUNK))[0].sum().backward()
    assert len(seen.places) == products * -(-VOCAB // TILE)


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_kept_where_no_backward_follows(frozen: bool) -> None:
    hidden, weight, target = case(CHUNK)
    if frozen:
        hidden, weight = hidden.detach(), weight.detach()
    with Products() as seen, torch.set_grad_enabled(frozen):
        token_logprobs(hidden, weight, target)
    assert len(set(seen.places)) == 1 < len(seen.places)


def test_a_second_backward_gives_the_same() -> None:
    hidden, weight, target = case(CHUNK + 3)
    loss = token_logprobs(hidden, weight, target, temperature=0.7)[0].sum()
    once = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    twice = torch.autograd.grad(loss, (hidden, weight))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
