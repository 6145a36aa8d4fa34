"""Held-out figures against a second computation, row by row, from the model's own logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.formats import load_dataset
from strop.evaluate.heldout import evaluate_objective, objective_rows
from strop.evaluate.likelihood import Likelihoods, likelihoods
from strop.evaluate.statistics import bootstrap, wilson
from strop.model.forward import LanguageModel
from strop.model.load import load, load_tokenizer
from strop.objectives import DPO, KTO, SFT

Model = tuple[LanguageModel, Chat]


@pytest.fixture(scope="module")
def model(tiny: Any) -> Model:
    return load(tiny.path("base")), Chat(load_tokenizer(tiny.path("base")))


def encoded(tiny: Any, chat: Chat, name: str, n: int) -> list[EncodedGroup]:
    found = chat.encode_many(load_dataset([tiny.data(name)], limit=n).groups, 128)
    assert all(isinstance(group, EncodedGroup) for group in found)
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def stock(tiny: Any) -> Any:
    """The same weights as transformers runs them."""
    return AutoModelForCausalLM.from_pretrained(tiny.path("base"))


def by_hand(stock: Any, prompt: tuple[int, ...], sequence: EncodedSequence) -> tuple[Any, Any]:
    """Log-probs of the trained tokens, and whether each is the first choice, by an unpacked forward."""
    ids = torch.tensor([[*prompt, *sequence.ids]])
    with torch.no_grad():
        logits = stock(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
    trained = torch.tensor(sequence.trained)
    target = torch.tensor(sequence.ids)
    logprobs = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    return logprobs[trained], (logits.argmax(-1) == target)[trained].double()


def test_sft_figures_are_means_over_rows_of_row_means(tiny: Any, model: Model, stock: Any) -> None:
    groups = encoded(tiny, model[1], "sft", 7)
    hand = [by_hand(stock, g.prompt_ids, g.sequences[0]) for g in groups]
    losses = [float(-logprobs.mean()) for logprobs, _ in hand]
    right = [float(correct.mean()) for _, correct in hand]
    assert len({len(g.sequences[0].ids) for g in groups}) > 1  # row means are not token means
    figures = evaluate_objective(model[0], groups, SFT(), 120, "cpu")
    loss = figures["eval_loss"]
    assert loss.value == pytest.approx(sum(losses) / 7, abs=1e-5) and loss.n == 7
    assert (loss.low, loss.high) == pytest.approx(bootstrap(losses), abs=1e-5)
    assert figures["eval_mean_token_accuracy"].value == pytest.approx(sum(right) / 7, abs=1e-9)
    assert figures["eval_perplexity"].value == pytest.approx(math.exp(loss.value))
    assert figures["eval_perplexity"].low == pytest.approx(math.exp(loss.low or 0))


def test_rows_keep_their_order_whatever_the_packing(tiny: Any, model: Model) -> None:
    groups = encoded(tiny, model[1], "sft", 7)
    whole = objective_rows(model[0], groups, SFT(), 4096, "cpu")["eval_loss"]
    assert objective_rows(model[0], groups, SFT(), 64, "cpu")["eval_loss"] == pytest.approx(whole, abs=1e-5)
    back = objective_rows(model[0], groups[::-1], SFT(), 100, "cpu")["eval_loss"]
    assert back == pytest.approx(whole[::-1], abs=1e-5)


def with_reference(stock: Any, group: EncodedGroup, shift: float) -> EncodedGroup:
    """A reference whose log-probs lie `shift` below the model's on the chosen side, and above it on the other."""
    sequences = []
    for place, sequence in enumerate(group.sequences):
        logprobs = by_hand(stock, group.prompt_ids, sequence)[0].tolist()
        moved = tuple(x - shift if place == 0 else x + shift for x in logprobs)
        sequences.append(replace(sequence, columns={"ref_logprobs": moved}))
    return replace(group, sequences=tuple(sequences))


def test_preference_figures_have_wilsons_interval_for_shares_alone(tiny: Any, model: Model, stock: Any) -> None:
    groups = [with_reference(stock, g, 0.01) for g in encoded(tiny, model[1], "pairs", 6)]
    figures = evaluate_objective(model[0], groups, DPO(beta=0.5, nll_weight=0.2), 256, "cpu")
    sizes = [[len(s.ids) for s in g.sequences] for g in groups]
    chosen = [0.5 * 0.01 * c for c, _ in sizes]
    margins = [0.5 * 0.01 * (c + r) for c, r in sizes]
    assert figures["eval_rewards/chosen"].value == pytest.approx(sum(chosen) / 6, abs=1e-4)
    margin = figures["eval_rewards/margins"]
    assert (margin.value, margin.n) == (pytest.approx(sum(margins) / 6, abs=1e-4), 6)
    assert (margin.low, margin.high) == pytest.approx(bootstrap(margins), abs=1e-4)
    assert figures["eval_rewards/accuracies"] == wilson(6, 6)
    nll = [float(-by_hand(stock, g.prompt_ids, g.sequences[0])[0].mean()) for g in groups]
    assert figures["eval_nll_loss"].value == pytest.approx(sum(nll) / 6, abs=1e-5)
    pair = sum(-math.log(1 / (1 + math.exp(-m))) for m in margins) / 6
    assert figures["eval_loss"].value == pytest.approx(pair + 0.2 * sum(nll) / 6, abs=1e-4)
    assert "eval_perplexity" not in figures


def test_rewards_that_are_all_zero_are_no_share(model: Model) -> None:
    """At the reference every reward is 0 by construction; an interval for a share of 1s would be nonsense."""
    sequence = EncodedSequence((5, 6), (True, True))
    group = EncodedGroup((7, 8), (sequence, EncodedSequence((9,), (True,))))
    rows = likelihoods(model[0], [group], 4096, "cpu")
    same = Likelihoods(rows.sums * 50, rows.means * 50)
    figures = same.against(same, seed=0)
    assert (figures["rewards/margins"].value, figures["rewards/margins"].low) == (0.0, None)
    assert figures["rewards/accuracies"] == wilson(0, 50)


def test_chosen_tokens_are_counted_to_their_own_rows_even_where_their_number_is_that_of_sequences(
    model: Model, stock: Any
) -> None:
    def group(chosen: int, rejected: int) -> EncodedGroup:
        made = [
            EncodedSequence(tuple(range(9, 9 + n)), (True,) * n, {"ref_logprobs": (0.0,) * n})
            for n in (chosen, rejected)
        ]
        return EncodedGroup((7, 8), tuple(made))

    groups = [group(1, 2), group(3, 2)]  # four chosen tokens, four sequences
    rows = objective_rows(model[0], groups, DPO(nll_weight=0.2), 4096, "cpu")["eval_nll_loss"]
    hand = [float(-by_hand(stock, g.prompt_ids, g.sequences[0])[0].mean()) for g in groups]
    assert rows == pytest.approx(hand, abs=1e-5)


def test_metrics_of_some_rows_alone_are_counted_to_those_rows(tiny: Any, model: Model, stock: Any) -> None:
    """KTO's rewards/chosen has entries of desirable rows only; the others have none, and n says so."""
    groups = []
    for number, group in enumerate(encoded(tiny, model[1], "sft", 6)):
        moved = with_reference(stock, group, 0.01 * number)
        column = {**moved.sequences[0].columns, "labels": float(number % 3 > 0), "kl_baseline": 0.0}
        groups.append(replace(moved, sequences=(replace(moved.sequences[0], columns=column),)))
    sizes = [0.1 * 0.01 * k * g.sequences[0].num_trained for k, g in enumerate(groups)]
    rows = objective_rows(model[0], groups, KTO(), 200, "cpu")
    for name, labels in (("eval_rewards/chosen", (1, 2, 4, 5)), ("eval_rewards/rejected", (0, 3))):
        assert [k for k, value in enumerate(rows[name]) if not math.isnan(value)] == list(labels)
        assert [rows[name][k] for k in labels] == pytest.approx([sizes[k] for k in labels], abs=1e-4)
    figures = evaluate_objective(model[0], groups, KTO(), 4096, "cpu")
    assert (figures["eval_rewards/chosen"].n, figures["eval_loss"].n) == (4, 6)
    difference = figures["eval_rewards/chosen"].value - figures["eval_rewards/rejected"].value
    assert (figures["eval_rewards/margins"].value, figures["eval_rewards/margins"].n) == (difference, 6)


def test_likelihoods_are_the_models_own(tiny: Any, model: Model, stock: Any) -> None:
    groups = encoded(tiny, model[1], "pairs", 5)
    found = likelihoods(model[0], groups, 200, "cpu")
    for group, sums, means in zip(groups, found.sums, found.means, strict=True):
        for sequence, total, mean in zip(group.sequences, sums, means, strict=True):
            logprobs = by_hand(stock, group.prompt_ids, sequence)[0]
            assert (total, mean) == pytest.approx((float(logprobs.sum()), float(logprobs.mean())), abs=1e-4)
