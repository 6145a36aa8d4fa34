"""PPO stages over a model that was never trained: the guard on log-probs, who learns when, and what is left."""

from __future__ import annotations

import importlib.util
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

import strop
from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.source import Collected
from strop.model.head import load_scalar
from strop.model.load import load, load_tokenizer
from strop.objectives import PPO, ClippedValue
from strop.recipes.settings import Sampling
from strop.recipes.stages import common
from strop.rollout.sampler import Sampled
from strop.token_credit import GAE
from strop.train import annotate
from strop.train.annotate import Reference
from strop.train.control import FixedKL, KLControl
from strop.train.crediting import PPOCredit, Values
from strop.train.learner import Learner
from strop.train.loop import Packing, Passes, train
from strop.train.optim import AdamW, Constant


def stage(tiny: Any, steps: int = 2, **changes: Any) -> dict[str, Any]:
    return {**tiny.ppo(steps=steps, batch_size=3), **changes}


def rows_of(tiny: Any, small_runs: Any, folder: Path, made: dict[str, Any]) -> tuple[Path, list[dict[str, Any]]]:
    run = strop.run(tiny.recipe(folder, made), display="quiet").path
    return run, small_runs.numbers(run)


def test_the_first_update_is_on_policy_and_what_is_measured_fits_together(
    tiny: Any, small_runs: Any, tmp_path: Path
) -> None:
    """One update a rollout: the ratio is 1, the policy is its own reference, the critic says 0."""
    _, (first, second) = rows_of(tiny, small_runs, tmp_path, stage(tiny, passes=1, minibatches=1))
    assert first["sampling/sampling_logp_difference/max"] < 1e-4
    assert first["val/ratio"] == pytest.approx(1.0, abs=1e-5) and first["policy/clipfrac_avg"] == 0
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-4) and first["kl_coef"] == 0.2
    assert first["loss/policy_avg"] == pytest.approx(0.0, abs=1e-5), "whitened advantages have mean 0"
    assert first["critic/loss"] == pytest.approx(0.1 * first["loss/value_avg"], rel=1e-5)
    assert first["val/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert first["objective/scores"] == first["reward"] - first["completions/clipped_ratio"]  # a penalty of 1
    assert first["val/num_eos_tokens"] == round(3 * (1 - first["completions/clipped_ratio"]))
    error = min(max(first["objective/kl"] / 1.0 - 1, -0.2), 0.2)
    assert second["kl_coef"] == pytest.approx(0.2 * (1 + error * 3 / 100))
    for row in (first, second):
        assert row["objective/non_score_reward"] == pytest.approx(-row["kl_coef"] * row["objective/kl"], abs=1e-12)
        both = row["objective/scores"] + row["objective/non_score_reward"]
        assert row["objective/rlhf_reward"] == pytest.approx(both)
    assert second["objective/kl"] != 0
    assert "frac_reward_zero_std" not in first, "a completion alone has no sibling"


def test_a_lying_sampler_is_caught_even_after_a_warmup(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = common.sample

    def lying(*arguments: Any, **settings: Any) -> list[list[Sampled]]:
        found = honest(*arguments, **settings)
        return [[replace(s, logprobs=tuple(x - 0.01 for x in s.logprobs)) for s in row] for row in found]

    monkeypatch.setattr(common, "sample", lying)
    with pytest.raises(RuntimeError, match=r"rollout and training log-probs differ by 0\.01 nats a token"):
        strop.run(tiny.recipe(tmp_path, stage(tiny, value_warmup=1)), display="quiet")


def test_a_reference_at_another_temperature_is_caught(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KL in the reward is 0 before anything was learned."""
    honest = annotate.sequence_logprobs

    def other(*arguments: Any, temperature: float, **settings: Any) -> Any:
        return honest(*arguments, temperature=1.5 * temperature, **settings)

    monkeypatch.setattr(annotate, "sequence_logprobs", other)
    with pytest.raises(RuntimeError, match="the reference's log-probs differ from the policy's before the first step"):
        strop.run(tiny.recipe(tmp_path, stage(tiny)), display="quiet")


def test_in_the_warmup_only_the_critic_learns(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    run, rows = rows_of(tiny, small_runs, tmp_path, stage(tiny, steps=3, value_warmup=2))
    assert ["loss" in row for row in rows] == [False, False, True]
    assert all("critic/loss" in row for row in rows)
    assert rows[2]["sampling/sampling_logp_difference/mean"] > 0
    base = load(tiny.path("base")).module.state_dict()
    run, _ = rows_of(tiny, small_runs, tmp_path / "whole", stage(tiny, value_warmup=2))
    after = load(str(run / "stages/ppo/model")).module.state_dict()
    assert all(torch.equal(base[name], after[name]) for name in base)
    (alarm,) = small_runs.events(run, "alarm")
    assert alarm["text"] == "value_warmup 2 takes all 2 steps: the policy stays as it is"
    critic = load_file(run / "stages/ppo/critic/model.safetensors")
    assert float(critic["score.weight"].abs().max()) > 0


def test_a_rollouts_updates_end_with_the_trust_region(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """Two passes of two updates; the second update finds the first has gone too far."""
    run = strop.run(
        tiny.recipe(tmp_path, stage(tiny, steps=1, target_kl=1e-9), stage(tiny, steps=1, name="all")), display="quiet"
    ).path
    cut, whole = small_runs.numbers(run)
    assert 0 < cut["policy/approxkl_avg"] < whole["policy/approxkl_avg"]
    assert cut["num_tokens"] < whole["num_tokens"]


@pytest.mark.parametrize("adapter", [None, {"name": "lora", "r": 4, "alpha": 8}], ids=["full", "lora"])
def test_a_shared_critic(adapter: Any, tiny: Any, small_runs: Any, tmp_path: Path, toys) -> None:
    """One learner, and a critic's folder whose trunk is the model that was left."""
    made = stage(tiny, critic="shared", kl={"name": "fixed", "coefficient": 0.0}, num_generations=2, adapter=adapter)
    run, (first, _) = rows_of(tiny, small_runs, tmp_path, made)
    assert "critic/loss" not in first and "objective/kl" not in first
    assert first["loss"] == pytest.approx(first["loss/policy_avg"] + 0.1 * first["loss/value_avg"], rel=1e-6)
    critic = load_scalar(str(run / "stages/ppo/critic"), reads="before", say=lambda text: None)
    assert float(critic.module.score.weight.detach().abs().max()) > 0
    model = load(str(run / "stages/ppo/model"))
    for name, tensor in model.module.base_model.state_dict().items():
        torch.testing.assert_close(critic.module.base_model.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert json.loads((run / "summary.json").read_text())["stages"][0]["artifacts"].keys() >= {"model", "critic"}


def test_a_shared_critic_resumes_to_the_bit(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    made = tiny.ppo(steps=4, save_every=2) | {"critic": "shared"}
    child = small_runs.Child()
    killed = child(tiny.recipe(tmp_path / "cut", made), at=["step", "ppo", 2], signal=int(signal.SIGKILL))
    assert killed == -signal.SIGKILL
    cut = strop.run(small_runs.only_run(tmp_path / "cut"), display="quiet").path
    whole = strop.run(tiny.recipe(tmp_path / "whole", made), display="quiet").path
    assert [e["step"] for e in small_runs.events(cut, "resume")] == [2]
    assert small_runs.numbers(cut) == small_runs.numbers(whole)
    assert small_runs.weights(cut, "ppo") == small_runs.weights(whole, "ppo")


def test_a_critic_goes_on_from_another_stages(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """The critic a run left is the start of the next one's: its first values explain what the last ones did."""
    first, _ = rows_of(tiny, small_runs, tmp_path / "a", stage(tiny, steps=3, value_warmup=3))
    folder = first / "stages/ppo/critic"
    second, (row,) = rows_of(tiny, small_runs, tmp_path / "b", stage(tiny, steps=1, critic=str(folder)))
    assert row["val/explained_variance"] != 0
    assert row["loss/value_avg"] < small_runs.numbers(first)[0]["loss/value_avg"]
    entry = json.loads((second / "stages/ppo/stage.json").read_text())
    assert entry["inputs"]["critic"] == str(folder) and "critic" in entry["input_hashes"]


def test_a_whole_step_is_that_of_plain_transformers(tiny: Any, tmp_path: Path) -> None:
    """One rollout, two passes, policy and critic: padded rows and textbook torch give the same weights."""
    base, prompts = tiny.path("base"), ["Sort 321.", "Compute 1+2.", "Last digit of 77?", "Sort 98765."]
    model, critic = load(base, trainable=True), load_scalar(base, reads="before", trainable=True, say=lambda text: None)
    critic.module.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(base)
    chat = Chat(tokenizer)
    ids = [chat.encode_prompt(text) for text in prompts]
    (stop,) = chat.stop_ids
    drawn = common.sampler(model, chat, Sampling(max_completion_length=9), 3, 1)(ids, 0, 0)
    answers = [(*row[0].ids[:5], stop) if i == 1 else row[0].ids for i, row in enumerate(drawn)]  # one of them ends
    plain_policy, reference = (AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    logprobs = [_plain_logprobs(plain_policy, p, a) for p, a in zip(ids, answers, strict=True)]
    groups = tuple(
        EncodedGroup(
            p, (EncodedSequence(a, (True,) * len(a), {"old_logprobs": o, "rewards": _score(a)}, stop not in a),)
        )
        for p, a, o in zip(ids, answers, logprobs, strict=True)
    )

    plain_critic = AutoModelForTokenClassification.from_pretrained(tmp_path, num_labels=1)
    with torch.no_grad():  # a reference of its own, or the KL would be 0
        reference.get_input_embeddings().weight.mul_(0.9)
    theirs = _plain_step(plain_policy, plain_critic, reference, ids, answers, stop, tokenizer.pad_token_id)

    reference.save_pretrained(tmp_path / "reference")
    packing = Packing(100, "cpu", splittable=True)
    learners = [
        Learner(model, PPO(), AdamW(lr=1e-3, eps=1e-5)(model.module), Constant(), 2),
        Learner(critic, ClippedValue(), AdamW(lr=1e-3, eps=1e-5)(critic.module), Constant(), 2, label="critic"),
    ]
    annotations = (
        Reference(load(str(tmp_path / "reference")), "r", "fp32", None, 1.0, 100, "cpu"),
        Values(lambda batch: critic(batch).values, 100, "cpu"),  # type: ignore[return-value,arg-type]
        PPOCredit(GAE(), KLControl(FixedKL(coefficient=0.05)), None, 1.0),
    )
    (ours,) = train(
        learners, lambda step: Collected(groups), steps=1, annotations=annotations, packing=packing, passes=Passes(2)
    )
    measured = {**ours.metrics, **ours.first}
    for name, value in theirs.items():
        if name in measured and name != "num_tokens":
            assert measured[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert {"loss/policy_avg", "loss/value_avg", "objective/kl", "objective/scores"} <= measured.keys() & theirs.keys()
    assert abs(theirs["objective/kl"]) > 0.01
    for mine, plain in ((model.module, plain_policy), (critic.module, plain_critic)):
        own = dict(plain.named_parameters())
        for name, parameter in mine.named_parameters():
            torch.testing.assert_close(parameter, own[name], rtol=0, atol=2e-5, msg=name)


def _score(ids: Any) -> float:
    return len(set(ids)) / 5 - 1


def _plain_logprobs(module: Any, prompt: Any, answer: Any) -> tuple[float, ...]:
    """A completion's log-probs, alone."""
    with torch.no_grad():
        logits = module(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return tuple(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist())


def _plain_step(policy: Any, critic: Any, reference: Any, ids: Any, answers: Any, stop: int, pad: int) -> Any:
    """benchmarks/plain_ppo.py on completions that are there already."""
    spec = importlib.util.spec_from_file_location("plain_ppo", Path(__file__).parents[2] / "benchmarks/plain_ppo.py")
    assert spec is not None and spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)

    def given(input_ids: Any, **_: Any) -> Any:
        longest = max(map(len, answers))
        rows = torch.tensor([[*a, *[pad] * (longest - len(a))] for a in answers])
        return torch.cat([input_ids, rows], 1)

    policy.generate = given
    optimizers = tuple(torch.optim.AdamW(m.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0) for m in (policy, critic))
    return plain.step(
        policy, critic, reference, _score, ids, optimizers,
        eos_token_id=stop, pad_token_id=pad, max_new_tokens=9, passes=2,
    )  # fmt: skip
