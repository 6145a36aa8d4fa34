"""Memory by arithmetic: the parts as they are told, and larger with everything that makes it larger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strop.recipes.memory import GIB, LOGITS, WAYS, Size, first_that_fits, needed
from strop.recipes.methods import by_name

SEVEN = Size.of(7e9)


def test_a_size_of_usual_proportions_gives_its_parameters_back() -> None:
    assert 12 * SEVEN.layers * SEVEN.width**2 == pytest.approx(7e9)
    assert SEVEN.layers == pytest.approx(33, abs=1) and SEVEN.width == pytest.approx(4200, abs=100)


def test_the_states_are_18_bytes_a_trained_parameter_and_2_a_frozen_one() -> None:
    way = replace(WAYS[0], tokens=0)
    assert needed(SEVEN, by_name()["sft"], way) == pytest.approx(1.1 * (18 * 7e9 + LOGITS) + GIB)
    frozen = replace(by_name()["dpo"], frozen=("reference",))
    assert needed(SEVEN, frozen, way) - needed(SEVEN, by_name()["dpo"], way) == pytest.approx(1.1 * 2 * 7e9)
    lora = replace(WAYS[3], tokens=0)
    assert needed(SEVEN, by_name()["sft"], lora) == pytest.approx(1.1 * ((2 + 0.006 * 16) * 7e9 + LOGITS) + GIB)


def test_it_grows_with_size_models_tokens_and_samples() -> None:
    found = by_name()
    for way in WAYS:
        sizes = [needed(Size.of(p), found["grpo"], way) for p in (1e8, 1e9, 1e10)]
        assert sizes == sorted(sizes)
        assert needed(SEVEN, found["ppo"], way) > needed(SEVEN, found["grpo-deepseek"], way)
        assert needed(SEVEN, found["grpo"], way) >= needed(SEVEN, found["sft"], way)
        assert needed(SEVEN, found["sft"], replace(way, tokens=2 * way.tokens)) > needed(SEVEN, found["sft"], way)


def test_each_way_takes_less_than_the_one_before() -> None:
    for name in ("sft", "dpo", "grpo", "ppo"):
        sizes = [needed(SEVEN, by_name()[name], way) for way in WAYS]
        assert sizes == sorted(sizes, reverse=True), name


def test_the_plainest_way_that_fits() -> None:
    sft = by_name()["sft"]
    assert first_that_fits(Size.of(1e8), sft, 24) is WAYS[0]
    lora = first_that_fits(SEVEN, sft, 24)
    assert lora is not None and lora.adapter == 2.0
    qlora = first_that_fits(SEVEN, sft, 10)
    assert qlora is not None and "adapter.quantize=nf4" in qlora.settings
    assert first_that_fits(Size.of(7e10), sft, 24) is None
