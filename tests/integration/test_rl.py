"""GRPO stages over a model that was never trained: the guard on log-probs, empty steps, and what is sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.data.chat import Chat
from strop.model.forward import LanguageModel
from strop.model.load import load, load_tokenizer
from strop.recipes.settings import Sampling
from strop.recipes.stages import common
from strop.rollout.sampler import Sampled
from strop.train import annotate


def stage(tiny: Any, reward: str = "letters", **changes: Any) -> dict[str, Any]:
    made = tiny.grpo(steps=2, batch_size=3)
    plain = {"passes": 1, "minibatches": 1, "objective": {"name": "grpo", "beta": 0.0}}
    named = {"name": "custom", "function": f"{tiny.path('rewards.py')}:{reward}", "label": reward}
    return {**made, **plain, "rewards": [named], **changes}


def test_the_first_step_agrees_with_the_sampler_and_a_lying_sampler_is_caught(
    tiny: Any, small_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = strop.run(tiny.recipe(tmp_path, stage(tiny)), display="quiet").path
    first = small_runs.numbers(run)[0]
    assert first["sampling/sampling_logp_difference/max"] < 1e-4
    honest = common.sample

    def lying(*arguments: Any, **settings: Any) -> list[list[Sampled]]:
        found = honest(*arguments, **settings)
        return [[replace(s, logprobs=tuple(x - 0.01 for x in s.logprobs)) for s in row] for row in found]

    monkeypatch.setattr(common, "sample", lying)
    with pytest.raises(RuntimeError, match=r"rollout and training log-probs differ by 0\.01 nats a token"):
        strop.run(tiny.recipe(tmp_path / "lying", stage(tiny)), display="quiet")


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"name": "grpo", "beta": 0.1}},
        {"objective": {"name": "rloo"}, "advantage": {"name": "leave_one_out", "beta": 0.1}},
        {"advantage": {"name": "reinforce_pp", "beta": 0.1}},
    ],
    ids=["loss", "leave_one_out", "reinforce_pp"],
)
def test_a_reference_at_another_temperature_is_caught(
    changes: dict[str, Any], tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the KL stands: it is 0 before anything was learned."""
    honest = annotate.sequence_logprobs

    def other(*arguments: Any, temperature: float, **settings: Any) -> Any:
        return honest(*arguments, temperature=1.5 * temperature, **settings)

    monkeypatch.setattr(annotate, "sequence_logprobs", other)
    with pytest.raises(RuntimeError, match="the reference's log-probs differ from the policy's before the first step"):
        strop.run(tiny.recipe(tmp_path, stage(tiny, **changes)), display="quiet")


def test_steps_without_a_group_are_counted_and_logged_and_change_nothing(
    tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    (tiny.folder / "same.py").write_text("def same(completion, row):\n    return 1.0\n")
    flat = stage(tiny, rewards=[{"name": "custom", "function": f"{tiny.path('same.py')}:same", "label": "same"}])
    run = strop.run(tiny.recipe(tmp_path, flat), display="quiet").path
    rows = small_runs.numbers(run)
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["frac_reward_zero_std"] == 1 and row["groups/kept"] == 0 and "loss" not in row for row in rows)
    assert all(row["num_tokens"] == 0 for row in rows)
    assert small_runs.summary(run)["state"] == "finished"
    base = load(tiny.path("base")).module.state_dict()
    after = load(str(run / "stages/grpo/model")).module.state_dict()
    assert all(torch.equal(base[name], after[name]) for name in base)
    assert [e["text"] for e in small_runs.events(run, "alarm")] == [
        "2 of 2 steps trained nothing: every group was left out: rewards equal or unscorable, or answers masked or "
        "too old"
    ]


def test_unscorable_rewards_are_counted_and_not_trained(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    code = "def some(completion, row):\n    return float(len(set(completion))) if len(completion) % 3 else None\n"
    (tiny.folder / "some.py").write_text(code)
    some = stage(tiny, rewards=[{"name": "custom", "function": f"{tiny.path('some.py')}:some", "label": "some"}])
    rows = small_runs.numbers(strop.run(tiny.recipe(tmp_path, some), display="quiet").path)
    assert 0 < rows[0]["rewards/unscorable"] < 9 and "loss" in rows[0]


def test_samples_are_a_function_of_seed_step_and_index(tiny: Any) -> None:
    model, chat = load(tiny.path("base")), Chat(load_tokenizer(tiny.path("base")))
    prompts = [chat.encode_prompt("Sort 321."), chat.encode_prompt("Compute 1+2.")]
    settings = Sampling(max_completion_length=6)

    def ids(model: LanguageModel, seed: int, step: int, asked: list[tuple[int, ...]], first: int = 0) -> list[Any]:
        draw = common.sampler(model, chat, settings, seed, 3)
        return [[s.ids for s in row] for row in draw(asked, step, first)]

    both = ids(model, 1, 2, prompts)
    torch.manual_seed(99)  # global state has no say
    assert ids(model, 1, 2, prompts) == both
    assert ids(model, 1, 2, prompts[1:], first=3) == both[1:]  # nor has what else is sampled
    assert both[0] != both[1] and len({tuple(x) for x in both[0]}) == 3
    assert ids(model, 1, 3, prompts) != both != ids(model, 2, 2, prompts)


def test_prompts_that_do_not_fit_are_dropped_and_said(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    rows = ['{"prompt": "Sort 321.", "answer": "123"}', '{"prompt": "%s", "answer": "1"}' % ("9" * 200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows * 2) + "\n")
    result = strop.run(tiny.recipe(tmp_path / "runs", stage(tiny, data=str(tmp_path / "rows.jsonl"))), display="quiet")
    (found,) = small_runs.events(result.path, "drop")
    assert found["text"].startswith("2 rows dropped: the prompt is longer than 116 tokens; first at ")
    assert found["text"].endswith("rows.jsonl:2")
    data = small_runs.summary(result.path)["stages"][0]["data"]
    assert (data["rows"], data["kept"], data["dropped"]) == (4, 2, {"the prompt is longer than 116 tokens": 2})
