"""Cards, and which settings are changed first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from strop.model.adapter import LoRA
from strop.recipes.planning.fits import Cards, changes, judge, sharded
from strop.recipes.planning.place import GIB
from strop.recipes.settings import PPOStage, PreferenceStage, RLStage, Stage, TrainingStage


def test_cards_are_read_from_text() -> None:
    assert Cards.of("24") == Cards(24, 1) and Cards.of("8x80") == Cards(80, 8) and Cards.of("80GB") == Cards(80, 1)
    assert str(Cards(80, 8)) == "8 x 80 GB" and str(Cards(24)) == "24 GB"


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "two", "0x80", "1e9"])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--gpu .*as 24, or several cards, as 4x24"):
        Cards.of(text)


def test_settings_that_change_no_result_come_first() -> None:
    names = [change.setting.partition("=")[0] for change in changes(RLStage())]
    assert names[:3] == ["training.micro_batch_tokens", "training.gradient_checkpointing", "sampling.rows"]
    assert names[3:] == ["adapter.r", "training.max_length"]


def test_an_adapter_that_is_there_is_quantised_next() -> None:
    found = [change.setting for change in changes(PreferenceStage(adapter=LoRA()))]
    assert "adapter.quantize=nf4" in found and "adapter.r=16" not in found


def weighed(stage: Stage) -> list[Mapping[str, float]]:
    """A made-up stage: states of 20 GiB, a byte of activations a token, a tenth with checkpointing."""
    assert isinstance(stage, TrainingStage)
    tokens = (stage.training.micro_batch_tokens or 16384) * (0.1 if stage.training.gradient_checkpointing else 1)
    return [{"weights": GIB * (20 if stage.adapter is None else 2), "activations": tokens * GIB / 1000}]


def test_changes_are_made_one_after_another_until_it_fits() -> None:
    assert judge(PreferenceStage(), weighed, Cards(40)).fits
    small = judge(PreferenceStage(), weighed, Cards(30))
    assert not small.fits and small.would_fit and small.changes == ("training.micro_batch_tokens=8192",)
    smaller = judge(PreferenceStage(), weighed, Cards(4))
    assert smaller.would_fit and smaller.changes[-1] == "adapter.r=16"
    assert smaller.changes[0] == "training.micro_batch_tokens=4096", "the last value of a setting, once"


def test_of_two_phases_that_are_equally_full_each_is_made_smaller() -> None:
    """No single setting takes from the fullest of them, for the other is as full."""

    def both(stage: Stage) -> list[Mapping[str, float]]:
        assert isinstance(stage, RLStage)
        rows = stage.sampling.rows or 256
        return [*weighed(stage), {"weights": 20 * GIB, "kv cache": 16.384 * GIB * rows / 256}]

    found = judge(RLStage(), both, Cards(30))
    assert found.would_fit and found.changes == ("training.micro_batch_tokens=8192", "sampling.rows=128")


def test_rows_side_by_side_are_halved_from_what_a_step_draws() -> None:
    stage = PPOStage(training=replace(PPOStage().training, batch_size=64))
    assert "sampling.rows=32" in [change.setting for change in changes(stage)]


def test_rows_are_not_cut_to_less_than_an_answer_and_its_prompt() -> None:
    stage = RLStage(training=replace(RLStage().training, max_length=1024))
    longest = replace(stage.sampling, max_completion_length=600)
    assert "training.max_length=512" not in [c.setting for c in changes(replace(stage, sampling=longest))]


def test_nothing_helps_where_the_smallest_is_too_large() -> None:
    found = judge(PreferenceStage(), weighed, Cards(1))
    assert not found.would_fit and found.after > GIB


def test_states_are_cut_over_cards_and_activations_are_not() -> None:
    parts = {"weights": 8.0, "optimizer": 16.0, "rewards.0": 4.0, "activations": 5.0, "process": 1.0}
    assert sharded(parts, 4) == 2 + 4 + 1 + 5 + 1
    assert sharded(parts, 1) == sum(parts.values())
