"""Process rewards: the aggregates' invariants, and step scores against the stock model step by step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.rewards import ImplicitProcessReward, ProcessReward, score
from strop.rewards.process import PROCESS_FILE, aggregate, separator_of
from strop.types import Completion, Group, Message
from strop.world.model import write_base

HOW = ("min", "product", "last", "mean")


# Aggregates.


@pytest.mark.parametrize("how", HOW)
def test_one_step_is_its_own_aggregate_and_certainty_is_certain(how: Any) -> None:
    assert aggregate([0.37], how) == pytest.approx(0.37, rel=1e-15)
    assert aggregate([1.0] * 9, how) == 1.0


def test_aggregates_by_hand_and_in_order() -> None:
    scores = (0.5, 0.25, 0.8)
    assert [aggregate(scores, how) for how in HOW] == pytest.approx([0.25, 0.1, 0.8, 1.55 / 3], rel=1e-12)
    random = np.random.default_rng(0)
    for _ in range(100):
        p = random.random(random.integers(1, 9)).tolist()
        smallest, product, mean = (aggregate(p, how) for how in ("min", "product", "mean"))
        assert product <= smallest <= mean <= max(p) + 1e-12


def test_a_product_of_many_small_chances_is_taken_in_logs() -> None:
    assert aggregate([1e-200, 1e-150, 1.0], "product") == 0.0  # below the floats, and no error
    assert aggregate([0.9] * 200, "product") == pytest.approx(0.9**200, rel=1e-10)
    assert aggregate([0.5, 0.0], "product") == 0.0 == aggregate([0.5, 0.0], "min")


@pytest.mark.parametrize("how", HOW)
def test_what_is_not_scored_has_no_aggregate(how: Any) -> None:
    assert aggregate([], how) is None and aggregate([0.5, None, 0.9], how) is None


# A process reward model.

TEXTS = ("8+8=6;6+6=2;2+0=2", "8+8=6;6+6=3;3+0=3;", "2", ";;", "")
PROMPT = (Message("user", "Last digit of 8+8+6+0?"),)


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token classifier with random weights, as a stage of kind process leaves one."""
    from transformers import AutoConfig, AutoModelForTokenClassification

    folder = tmp_path_factory.mktemp("prm")
    write_base(folder, 0)
    config = AutoConfig.from_pretrained(folder, num_labels=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config.initializer_range = 0.3
        AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    (folder / PROCESS_FILE).write_text(json.dumps({"separator": ";"}))
    return folder


def by_hand(folder: Path, text: str) -> list[float]:
    """Each step's chance: the stock classifier alone on the prompt and the steps, tokenised apart."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": PROMPT[0].content}], add_generation_prompt=True)
    ids = list(asked["input_ids"] if hasattr(asked, "keys") else asked)
    ends = []
    for step in [part for part in text.split(";") if part]:
        ids += tokenizer(step, add_special_tokens=False)["input_ids"]
        ids += tokenizer(";", add_special_tokens=False)["input_ids"]
        ends.append(len(ids) - 1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :, 0]
    return torch.sigmoid(logits[ends].double()).tolist()


def test_steps_are_scored_as_the_stock_classifier_scores_them(prm: Path) -> None:
    """Solutions that share their first steps, of two prompts, in small micro-batches."""
    group = Group(PROMPT, tuple(Completion((Message("assistant", text),)) for text in TEXTS[:3]))
    plain = Group("Last digit", (Completion(TEXTS[0]),))
    reward = ProcessReward(path=str(prm), micro_batch_tokens=24)
    verdicts = reward([group, plain])
    for text, verdict in zip(TEXTS, verdicts[0], strict=False):
        want = by_hand(prm, text)
        assert list(verdict.step_scores) == pytest.approx(want, rel=1e-4)
        assert verdict.score == pytest.approx(min(want), rel=1e-4)
        assert "".join(verdict.steps) == text and len(verdict.steps) == len(want)
        assert verdict.reason == f"step {want.index(min(want)) + 1} of {len(want)} is the weakest: {min(want):.2f}"
    assert list(verdicts[1][0].step_scores) != list(verdicts[0][0].step_scores)  # another prompt
    assert len({v.step_scores for v in verdicts[0]}) == 3  # random weights tell them apart


@pytest.mark.parametrize("how", HOW)
def test_the_score_is_the_aggregate(prm: Path, how: Any) -> None:
    group = Group(PROMPT, (Completion(TEXTS[0]),))
    (verdict,) = ProcessReward(path=str(prm), aggregate=how)([group])[0]
    assert verdict.score == aggregate(verdict.step_scores, how)


def test_an_empty_solution_and_one_that_does_not_fit_are_unscorable(prm: Path) -> None:
    group = Group(PROMPT, tuple(Completion(text) for text in TEXTS))
    one, two, three, separators, empty = ProcessReward(path=str(prm))([group])[0]
    assert separators.score is not None and separators.steps == (";;",)
    assert (empty.score, empty.reason, empty.steps) == (None, "an empty solution", ())
    length = 15 + 12  # the prompt, and two steps of six tokens
    cut_one, cut_two, cut_three, *_ = ProcessReward(path=str(prm), max_length=length + 5)([group])[0]
    assert cut_one.score is None and cut_three.score == pytest.approx(three.score, rel=1e-5)
    known = [s for s in cut_one.step_scores if s is not None]
    assert 0 < len(known) < 3 and len(cut_one.step_scores) == 3
    assert known == pytest.approx(list(one.step_scores[: len(known)]), rel=1e-5)
    assert cut_one.reason == f"{len(known)} of 3 steps fit in max_length={length + 5}"
    nothing = ProcessReward(path=str(prm), max_length=3)([group])[0]
    assert [v.score for v in nothing] == [None] * 5


def test_scored_groups_hold_their_steps(prm: Path) -> None:
    watched = ProcessReward(path=str(prm), weight=0.0)
    given = Completion(TEXTS[0], step_labels=(True, True, False), steps=("8+8=6", "6+6=2", "2+0=2"))
    (scored,) = score([Group(PROMPT, (given,))], [watched])
    (completion,) = scored.completions
    assert completion.steps == ("8+8=6;", "6+6=2;", "2+0=2") and completion.step_labels == (True, True, False)
    assert list(completion.step_scores) == pytest.approx(by_hand(prm, TEXTS[0]), rel=1e-4)
    assert completion.rewards["process"] == min(completion.step_scores) and completion.score is None


def test_the_separator_comes_from_the_model_or_is_asked_for(prm: Path, tmp_path: Path) -> None:
    assert separator_of(str(prm)) == ";"
    (whole,) = ProcessReward(path=str(prm), separator="+")([Group(PROMPT, (Completion("1+2"),))])[0]
    assert whole.steps == ("1+", "2")
    write_base(tmp_path, 0)
    with pytest.raises(ValueError, match=r"has no process.json that says what ends a step; give separator"):
        ProcessReward(path=str(tmp_path))([])
    with pytest.raises(ValueError, match="process.separator is empty"):
        ProcessReward(path="x", separator="")
    with pytest.raises(ValueError, match="process.max_length must be at least 2, got 1"):
        ProcessReward(path="x", max_length=1)


# An implicit one.


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two language models with random weights that differ."""
    folders = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("reference")
    for seed, folder in enumerate(folders):
        write_base(folder, seed)
    return folders


def logprobs_by_hand(folder: Path, ids: list[int], prompt: int) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return logprobs[range(prompt - 1, len(ids) - 1), ids[prompt:]]


def test_implicit_steps_add_up_to_the_summed_log_ratio(pair: tuple[Path, Path]) -> None:
    from transformers import AutoTokenizer

    group = Group(PROMPT, tuple(Completion((Message("assistant", text),)) for text in TEXTS[:3]))
    reward = ImplicitProcessReward(path=tuple(map(str, pair)), beta=0.5, separator=";")
    verdicts = reward([group, Group(PROMPT, (Completion(""),))])
    tokenizer = AutoTokenizer.from_pretrained(pair[0])
    for completion, verdict in zip(group.completions, verdicts[0], strict=True):
        messages = [{"role": "user", "content": PROMPT[0].content}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        whole = prompt + completion.text + "<|end|>"
        ids, num = tokenizer(whole)["input_ids"], len(tokenizer(prompt)["input_ids"])
        ratios = 0.5 * (logprobs_by_hand(pair[0], ids, num) - logprobs_by_hand(pair[1], ids, num))
        assert verdict.score == pytest.approx(float(ratios.sum()), abs=1e-4)
        assert math.fsum(s for s in verdict.step_scores if s is not None) == pytest.approx(verdict.score, abs=1e-9)
        assert "".join(verdict.steps) == completion.text
        # Digits and signs are tokens of their own in this world, so a character is a token here.
        ends = np.cumsum([len(step) for step in verdict.steps])
        ends[-1] = len(ratios)
        want = [float(part.sum()) for part in np.split(ratios.numpy(), ends[:-1])]
        assert list(verdict.step_scores) == pytest.approx(want, abs=1e-4)
    assert verdicts[1][0].score is None
    smallest = ImplicitProcessReward(path=tuple(map(str, pair)), beta=0.5, separator=";", aggregate="min")
    assert [v.score for v in smallest([group])[0]] == [min(v.step_scores) for v in verdicts[0]]


def test_a_model_against_itself_rewards_nothing(pair: tuple[Path, Path]) -> None:
    group = Group(PROMPT, (Completion(TEXTS[0]),))
    (verdict,) = ImplicitProcessReward(path=(str(pair[0]), str(pair[0])), separator=";")([group])[0]
    assert verdict.score == 0.0 and verdict.step_scores == (0.0, 0.0, 0.0)


def test_implicit_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match="1 models; name two, the model and its reference"):
        ImplicitProcessReward(path=("a",))
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        ImplicitProcessReward(path=("a", "b"), beta=0.0)
