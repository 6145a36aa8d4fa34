"""The reference's log-probs: where they stand, and that the cache gives what the model would."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.data.encoded import EncodedGroup
from strop.model.forward import LanguageModel, forward
from strop.model.load import prepare
from strop.train import annotate
from strop.train.annotate import Reference, sequence_logprobs
from strop.train.refcache import ReferenceCache


@pytest.fixture(scope="module")
def model(toys) -> LanguageModel:
    return prepare(toys.stock("Llama"), say=pytest.fail)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups the model was asked for, call by call."""
    asked: list[int] = []

    def counted(model: LanguageModel, groups: Sequence[EncodedGroup], **settings: Any) -> Any:
        asked.append(len(groups))
        return sequence_logprobs(model, groups, **settings)

    monkeypatch.setattr(annotate, "sequence_logprobs", counted)
    return asked


def reference(model: LanguageModel, cache: ReferenceCache | None, **changes: Any) -> Reference:
    settings = {"identity": "m", "precision": "fp32", "temperature": 1.0, "max_tokens": 40, "device": "cpu"}
    return Reference(model=model, cache=cache, **{**settings, **changes})


def open_cache(folder: Path) -> ReferenceCache:
    return ReferenceCache(folder / "cache", "any", say=pytest.fail)


def column(groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
    return [s.columns["ref_logprobs"] for g in groups for s in g.sequences]


def same(ours: Sequence[tuple[float, ...]], theirs: Sequence[tuple[float, ...]]) -> bool:
    return len(ours) == len(theirs) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True)
    )


def test_numbers_stand_at_trained_tokens_and_nan_elsewhere(model: LanguageModel, toys) -> None:
    groups = toys.ragged(0, vocab=80, sizes=(2, 3))
    assert any(not g.prompt_ids for g in groups)
    annotated = reference(model, None)(groups)
    for group, given in zip(annotated, groups, strict=True):
        for sequence in group.sequences:
            numbers = sequence.columns["ref_logprobs"]
            assert len(numbers) == len(sequence.ids)
            for i, (trained, number) in enumerate(zip(sequence.trained, numbers, strict=True)):
                predicted = trained and (i > 0 or bool(group.prompt_ids))
                assert math.isfinite(number) if predicted else math.isnan(number)
        assert dataclasses.replace(group, sequences=given.sequences) == given, "nothing else is changed"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_numbers_are_those_of_the_policy_at_the_start(model: LanguageModel, temperature: float, toys) -> None:
    """Packed with its annotation, each trained token meets its own log-prob: the log-ratio is 0."""
    groups = reference(model, None, temperature=temperature)(toys.ragged(1, vocab=80, sizes=(2, 3)))
    batch = toys.one_batch(groups)
    with torch.no_grad():
        logprobs = forward(model, batch, temperature=temperature).logprobs
    torch.testing.assert_close(batch.columns["ref_logprobs"], logprobs, rtol=0, atol=2e-5)


def test_cached_is_exactly_uncached(model: LanguageModel, tmp_path: Path, runs: list[int], toys) -> None:
    groups = toys.ragged(2, vocab=80)
    plain = column(reference(model, None)(groups))
    cache = open_cache(tmp_path)
    first, second = (column(reference(model, cache)(groups)) for _ in range(2))
    cache.close()
    again = open_cache(tmp_path)
    third = column(reference(model, again)(groups))
    again.close()
    assert same(first, plain) and same(second, plain) and same(third, plain)
    assert runs == [5, 5], "once without the cache, once to fill it; then it is read"


def test_only_what_is_missing_is_computed(model: LanguageModel, tmp_path: Path, runs: list[int], toys) -> None:
    groups = toys.ragged(3, vocab=80)
    cache = open_cache(tmp_path)
    reference(model, cache)(groups[:2])
    annotated = reference(model, cache)(groups)
    cache.close()
    assert runs == [2, 3]
    for ours, theirs in zip(column(annotated), column(reference(model, None)(groups)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_the_key_changes_with_everything_the_number_depends_on(
    model: LanguageModel, tmp_path: Path, runs: list[int], toys
) -> None:
    group = toys.group((1, 2, 3), (4, 5, 6))
    (sequence,) = group.sequences
    others = {
        "prompt": dataclasses.replace(group, prompt_ids=(1, 2, 4)),
        "where the prompt ends": toys.group((1, 2), (3, 4, 5, 6)),
        "completion": toys.group((1, 2, 3), (4, 5, 7)),
        "mask": dataclasses.replace(group, sequences=(dataclasses.replace(sequence, trained=(True, False, True)),)),
    }
    cache = open_cache(tmp_path)
    base = reference(model, cache)
    base([group])
    for name, other in others.items():
        runs.clear()
        assert len(base([other])) == 1 and runs == [1], f"the cache did not tell the {name} apart"
    for change in ({"identity": "n"}, {"precision": "bf16"}, {"temperature": 0.9}):
        runs.clear()
        reference(model, cache, **change)([group])
        assert runs == [1], f"the cache did not tell {change} apart"
    runs.clear()
    base([dataclasses.replace(group, origin="elsewhere", columns={"weight": 2.0})])
    assert runs == [], "what the log-probs do not depend on is no part of the key"
    cache.close()


def test_no_gradient_and_no_graph(model: LanguageModel, toys) -> None:
    reference(model, None)(toys.ragged(4, vocab=80))
    assert all(p.grad is None for p in model.module.parameters())


def test_no_groups_no_work(model: LanguageModel, runs: list[int]) -> None:
    assert reference(model, None)([]) == () and runs == []


def test_splitting_changes_nothing(model: LanguageModel, toys) -> None:
    """A budget of one token spreads each group's sequences; their numbers find their way back."""
    groups = toys.ragged(5, vocab=80, sizes=(3, 1, 4))
    whole, split = (sequence_logprobs(model, groups, temperature=1.0, max_tokens=n, device="cpu") for n in (1 << 30, 1))
    for ours, theirs in zip(whole, split, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)
