"""Batches and the slow, plain answer that the forward is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack


def forest(vocab: int = 89) -> list[EncodedGroup]:
    """What a forward must get right at once.

    A prompt with three answers, one a single token; a tree four levels deep whose answers are
    also duplicates and prefixes of one another; a group without a prompt; untrained tokens.
    """
    random = np.random.default_rng(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(int(i) for i in random.integers(3, vocab, size=length))

    def sequence(tokens: Sequence[int], untrained: int = 0) -> EncodedSequence:
        return EncodedSequence(tuple(tokens), tuple(i >= untrained for i in range(len(tokens))))

    stem, branch, twig = ids(34), ids(33), ids(32)
    deep = [
        sequence(stem + branch + twig + ids(2), untrained=70),
        sequence(stem + branch + twig + ids(3)),
        sequence(stem + branch + ids(4)),
        sequence(stem + ids(1)),
        sequence(stem + branch),
        sequence(stem + branch),
        sequence(ids(2)),
    ]
    return [
        EncodedGroup(ids(9), (sequence(ids(6), untrained=2), sequence(ids(1)), sequence(ids(4)))),
        EncodedGroup(ids(3), tuple(deep)),
        EncodedGroup((), (sequence(ids(5)), sequence(ids(7)))),
        EncodedGroup(ids(1), (sequence(ids(1)), sequence(ids(1)))),
    ]


def spelled_out(module: Any, groups: Sequence[EncodedGroup]) -> Tensor:
    """Log-probs of the trained tokens in order, each sequence alone through the stock model: no pads, no packing."""
    out = []
    for group in groups:
        for sequence in group.sequences:
            ids = torch.tensor([group.prompt_ids + sequence.ids])
            logprobs = module(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            first = len(group.prompt_ids)
            for i, trained in enumerate(sequence.trained):
                if trained and first + i > 0:
                    out.append(logprobs[first + i - 1, sequence.ids[i]])
    return torch.stack(out)


def gradients(module: Any, logprobs: Tensor) -> dict[str, Tensor]:
    """The gradient in every parameter of a fixed, uneven combination of the log-probs."""
    weights = torch.linspace(-1.0, 1.5, logprobs.shape[0])
    module.zero_grad(set_to_none=True)
    (weights * logprobs).sum().backward()
    found = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad(set_to_none=True)
    return found


def assert_gradients_agree(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each parameter's difference against the size of its gradient, as norms."""
    assert ours.keys() == theirs.keys()
    for name, want in theirs.items():
        difference = float((ours[name] - want).norm() / want.norm().clamp(min=1e-12))
        assert difference <= tolerance, f"{name}: relative difference {difference:.2e}"


@pytest.fixture
def groups() -> list[EncodedGroup]:
    return forest()


@pytest.fixture
def batch(groups: list[EncodedGroup]) -> Batch:
    (whole,) = pack(groups, max_tokens=1 << 30).batches
    assert max(len(whole.layout.path(leaf)) for leaf in whole.layout.leaf) >= 4
    return whole


@pytest.fixture
def plain() -> Callable[[Any, Sequence[EncodedGroup]], Tensor]:
    return spelled_out


@pytest.fixture
def gradients_of() -> Callable[[Any, Tensor], dict[str, Tensor]]:
    return gradients


@pytest.fixture
def agree() -> Callable[[dict[str, Tensor], dict[str, Tensor], float], None]:
    return assert_gradients_agree
