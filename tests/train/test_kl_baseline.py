"""KTO's baseline: partners of other prompts, mismatched completions, and one z0 for a whole step."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from strop import dist
from strop.batch import step_totals, weighted_loss
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.model.forward import LanguageModel, forward
from strop.model.load import prepare
from strop.objectives import KTO
from strop.train.annotate import Reference
from strop.train.kl_baseline import KLBaseline, mismatched, numbered, partners


@pytest.fixture(scope="module")
def policy(toys) -> LanguageModel:
    return prepare(toys.stock("Llama"), say=pytest.fail)


@pytest.fixture(scope="module")
def reference(toys) -> Reference:
    model = prepare(toys.stock("Llama", seed=1), say=pytest.fail)
    return Reference(
        model=model, identity="m", precision="fp32", cache=None, temperature=1.0, max_tokens=100, device="cpu"
    )


# Partners.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prompts", ["ab", "aabb", "abcabcabc", "aaabbc", "aaaaabbcdef", "abcdefgh"])
def test_each_row_is_the_partner_of_one_row_of_another_prompt(prompts: str, seed: int) -> None:
    found = partners(prompts, seed)
    assert all(prompts[i] != prompts[j] for i, j in enumerate(found))
    assert sorted(found) == list(range(len(prompts)))


@pytest.mark.parametrize("prompts", ["aaab", "aaaaabb", "baaaaaac"])
def test_where_one_prompt_has_most_rows_the_others_are_shared_evenly(prompts: str) -> None:
    found = partners(prompts, 0)
    assert all(prompts[i] != prompts[j] for i, j in enumerate(found))
    times = Counter(found[i] for i, prompt in enumerate(prompts) if prompt == "a")
    assert len(times) == len(prompts) - prompts.count("a") and max(times.values()) - min(times.values()) <= 1


def test_partners_are_a_function_of_the_seed() -> None:
    prompts = [chr(65 + i // 2) for i in range(40)]
    assert partners(prompts, 3) == partners(prompts, 3) != partners(prompts, 4)


def test_one_prompt_has_no_partner() -> None:
    with pytest.raises(ValueError, match="all 5 rows have the same prompt"):
        partners("aaaaa", 0)


# Mismatched completions.


def test_a_row_s_prompt_stands_before_its_partner_s_completions(toys) -> None:
    groups = [toys.group((1, 2), (3, 4), (5,)), toys.group((7,), (8, 9, 10))]
    assert mismatched(groups, max_length=50, seed=0) == [
        toys.group((1, 2), (8, 9, 10)),
        toys.group((7,), (3, 4), (5,)),
    ]


def test_mismatched_completions_are_cut_to_the_room_and_left_out_where_nothing_trained_fits(toys) -> None:
    late = EncodedSequence((5, 6, 7), (False, False, True), {"labels": 1.0})
    groups = [toys.group((1,) * 8, (2,)), EncodedGroup((3,), (EncodedSequence((8,) * 5, (True,) * 5), late))]
    first, second = mismatched(groups, max_length=10, seed=0)
    assert first == toys.group((1,) * 8, (8, 8)) and second == toys.group((3,), (2,))
    assert mismatched([groups[0], EncodedGroup((3,), (late,))], max_length=10, seed=0)[0].sequences == ()


# The baseline.


def data(toys, reference: Reference, count: int = 6, seed: int = 0) -> tuple[list[EncodedGroup], dict[int, Any]]:
    """Labelled rows, one or two completions each, and their mismatched groups."""
    rows = [g for g in toys.ragged(seed, num_groups=count + 1, sizes=(1, 2), vocab=80) if g.prompt_ids]
    others = reference(mismatched(rows, max_length=100, seed=0))
    return with_labels(reference(numbered(rows)), (1.0, 0.0)), dict(enumerate(others))


def with_labels(groups: Sequence[EncodedGroup], labels: Sequence[float]) -> list[EncodedGroup]:
    """The groups' completions labelled in turn."""
    turn = itertools.cycle(labels)
    return [
        replace(g, sequences=tuple(replace(s, columns={**s.columns, "labels": next(turn)}) for s in g.sequences))
        for g in groups
    ]


def by_hand(policy: LanguageModel, others: dict[int, EncodedGroup], rows: range) -> float:
    """The mean log-ratio of the mismatched completions, each forwarded alone."""
    ratios = []
    for row in rows:
        for sequence in others[row].sequences:
            (batch,) = pack([replace(others[row], sequences=(sequence,))], max_tokens=1000).batches
            with torch.no_grad():
                logprobs = forward(policy, batch).logprobs
            ratios.append(float((logprobs - batch.columns["ref_logprobs"]).sum()))
    return float(np.mean(ratios))


def baseline(policy: LanguageModel, others: dict[int, Any], max_tokens: int = 1000) -> KLBaseline:
    return KLBaseline(policy, others, max_tokens, "cpu")


def test_z0_is_the_mean_over_the_step_at_least_0(policy: LanguageModel, reference: Reference, toys) -> None:
    groups, others = data(toys, reference)
    signs = set()
    for rows in (range(6), range(3, 6), *(range(i, i + 1) for i in range(6))):
        raw = by_hand(policy, others, rows)
        signs.add(raw > 0)
        annotated = baseline(policy, others)([groups[i] for i in rows])
        found = {s.columns["kl_baseline"] for g in annotated for s in g.sequences}
        assert len(found) == 1 and found.pop() == pytest.approx(max(0.0, raw), abs=1e-4)
        assert [g.columns for g in annotated] == [{}] * len(annotated)  # the number is gone
    assert signs == {True, False}, "one sign alone tells nothing of the clamp"


def test_z0_is_0_while_policy_and_reference_agree(reference: Reference, toys) -> None:
    groups, others = data(toys, reference)
    for max_tokens in (1, 1000):
        annotated = baseline(reference.model, others, max_tokens)(groups)
        assert all(s.columns["kl_baseline"] == pytest.approx(0.0, abs=1e-5) for g in annotated for s in g.sequences)


@pytest.mark.parametrize("labels", [(1.0,), (0.0,), (1.0, 0.0, 0.0)])
def test_micro_batches_of_one_row_give_the_same_gradient(
    labels: tuple[float, ...], policy: LanguageModel, reference: Reference, toys
) -> None:
    """z0 belongs to the step: rows packed one by one, or a step of one class, change nothing."""
    groups, others = data(toys, reference, seed=1)
    groups = with_labels(groups, labels)
    objective = KTO(beta=0.5)
    gradients = []
    for max_tokens in (1000, 1):
        annotated = baseline(policy, others, max_tokens)(groups)
        batches = pack(annotated, max_tokens=max_tokens, splittable=True).batches
        totals = step_totals(objective.reductions, batches)
        for batch in batches:
            weighted_loss(objective(forward(policy, batch), batch), batch, objective.reductions, totals).backward()
        gradients.append([p.grad for p in policy.module.parameters()])
        policy.module.zero_grad(set_to_none=True)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_z0_is_one_over_all_ranks_and_a_rank_without_rows_asks_too(
    policy: LanguageModel, reference: Reference, monkeypatch: pytest.MonkeyPatch, toys
) -> None:
    groups, others = data(toys, reference)
    whole = baseline(policy, others)(groups)[0].sequences[0].columns["kl_baseline"]
    local: list[list[float]] = []
    monkeypatch.setattr(dist, "sum_numbers", lambda values: local.append(list(values)) or list(values))
    shares = [groups[:2], groups[2:], []]
    for share in shares:
        baseline(policy, others)(share)
    assert len(local) == 3 and local[2] == [0.0, 0.0]
    monkeypatch.setattr(dist, "sum_numbers", lambda values: [sum(column) for column in zip(*local, strict=True)])
    for share in shares[:2]:
        found = baseline(policy, others)(share)[0].sequences[0].columns["kl_baseline"]
        assert found == pytest.approx(whole, abs=1e-5)


def test_rows_whose_partner_left_nothing_are_passed_over(policy: LanguageModel, reference: Reference, toys) -> None:
    groups, others = data(toys, reference)
    emptied = {**others, 0: replace(others[0], sequences=())}
    found = baseline(policy, emptied)(groups)[0].sequences[0].columns["kl_baseline"]
    assert found == pytest.approx(max(0.0, by_hand(policy, others, range(1, 6))), abs=1e-4)
    assert baseline(policy, emptied)(groups[:1])[0].sequences[0].columns["kl_baseline"] == 0.0


def test_a_broken_policy_shows(policy: LanguageModel, reference: Reference, toys) -> None:
    groups, others = data(toys, reference)
    (sequence, *_) = others[0].sequences
    bad = replace(sequence, columns={"ref_logprobs": (math.inf,) * len(sequence.ids)})
    others[0] = replace(others[0], sequences=(bad, replace(bad, columns={"ref_logprobs": (-math.inf,) * len(bad.ids)})))
    assert math.isnan(baseline(policy, others)(groups[:1])[0].sequences[0].columns["kl_baseline"])
