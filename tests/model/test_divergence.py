"""The KL between two models along sequences: against each sequence alone, and over all tokens one could draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.model import divergence
from strop.model.divergence import token_divergences, vocabulary
from strop.model.load import prepare


def spelled_out(modules: tuple[Any, Any], groups: list[EncodedGroup], temperature: float) -> list[Tensor]:
    """Both estimates at the trained tokens, each sequence alone through the stock models, in float64."""
    out = []
    for group in groups:
        for sequence in group.sequences:
            ids = torch.tensor([group.prompt_ids + sequence.ids])
            with torch.no_grad():
                p, q = ((m(input_ids=ids).logits[0].double() / temperature).log_softmax(-1) for m in modules)
            first, rows = len(group.prompt_ids), []
            for i, trained in enumerate(sequence.trained):
                if trained and first + i > 0:
                    at, token = first + i - 1, sequence.ids[i]
                    rows.append(torch.stack([(p[at].exp() * (p[at] - q[at])).sum(), p[at, token] - q[at, token]]))
            out.append(torch.stack(rows))
    return out


@pytest.mark.parametrize("kind", ["Llama", "Gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_it_is_what_each_sequence_alone_says(
    kind: str, temperature: float, groups: list[EncodedGroup], toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our head (Llama) and by the model's own (Gemma 2), in tiles of a few tokens."""
    stock = toys.stock(kind, 0).eval(), toys.stock(kind, 1).eval()
    want = spelled_out(stock, groups, temperature)
    ours, reference = (prepare(module, say=lambda text: None) for module in stock)
    monkeypatch.setattr(divergence, "TILE", 7 * vocabulary(ours))
    found = token_divergences(ours, reference, groups, temperature=temperature, max_tokens=200, device="cpu")
    flat = [numbers for row in found for numbers in row]
    assert max(float(w[:, 0].max()) for w in want) > 0.05, "the models say almost the same: nothing is compared"
    for numbers, expected in zip(flat, want, strict=True):
        np.testing.assert_allclose(numbers, expected.numpy(), atol=2e-5)


def test_one_draw_is_right_on_average_and_the_whole_is_never_negative(toys: Any) -> None:
    """Every token as an answer of its own, weighed by its chance: the mean of log p - log q is the KL."""
    ours, reference = (prepare(toys.stock("Llama", seed)) for seed in (0, 1))
    vocab = vocabulary(ours)
    group = EncodedGroup((5, 9, 3), tuple(EncodedSequence((token,), (True,)) for token in range(vocab)))
    (rows,) = token_divergences(ours, reference, [group], temperature=1.0, max_tokens=4096, device="cpu")
    whole, single = np.array([row[0, 0] for row in rows]), np.array([row[0, 1] for row in rows])
    with torch.no_grad():
        p = (
            toys.stock("Llama", 0)
            .eval()(input_ids=torch.tensor([[5, 9, 3]]))
            .logits[0, -1]
            .double()
            .softmax(-1)
            .numpy()
        )
    assert np.ptp(whole) < 1e-6 and whole[0] > 0.01
    assert float(p @ single) == pytest.approx(float(whole[0]), abs=1e-5) and single.min() < 0


def test_a_model_is_no_way_from_itself(groups: list[EncodedGroup], toys: Any) -> None:
    model = prepare(toys.stock("Llama"))
    found = token_divergences(model, model, groups, temperature=1.0, max_tokens=400, device="cpu")
    assert all(np.abs(numbers).max() == 0 for row in found for numbers in row)
    assert token_divergences(model, model, [], temperature=1.0, max_tokens=400, device="cpu") == []


def test_other_vocabularies_have_no_kl(groups: list[EncodedGroup], toys: Any) -> None:
    models = [prepare(toys.stock("Llama", vocab_size=size)) for size in (89, 96)]
    with pytest.raises(ValueError, match="write 89 and 96 different tokens"):
        token_divergences(*models, groups, temperature=1.0, max_tokens=400, device="cpu")


def test_models_that_are_nearly_the_same_are_a_small_way_apart(groups: list[EncodedGroup], toys: Any) -> None:
    """A KL of 1e-9 and less is neither negative nor lost in rounding: against float64, term by term."""
    torch.manual_seed(0)
    logits = torch.randn(40, 500, dtype=torch.float64)
    for size in (1e-6, 1e-4, 1e-2, 0.1, 3.0):
        p, q = logits.log_softmax(-1), (logits + size * torch.randn(40, 500, dtype=torch.float64)).log_softmax(-1)
        want = (p.exp() * (p - q)).sum(-1)
        got = divergence._apart(p, q, torch.zeros(40, dtype=torch.long))[:, 0]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-15)
        rounded = divergence._apart(p.float(), q.float(), torch.zeros(40, dtype=torch.long))[:, 0]
        assert float(rounded.min()) >= 0
        torch.testing.assert_close(rounded.double(), want, rtol=1e-3, atol=1e-12)


def test_tokens_that_cannot_be_drawn_add_nothing() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
    q = torch.tensor([[0.25, 0.25, 0.5, 0.0]]).log()
    assert divergence._apart(p, q, torch.tensor([0]))[0].tolist() == pytest.approx([np.log(2), np.log(2)])
    assert divergence._apart(q, p, torch.tensor([0]))[0, 0] == float("inf")
