"""Online preference stages over a model that was never trained: the first step, ties, resuming, and the reference."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import strop
from strop.batch import Batch
from strop.objectives import DPO, IPOSum
from strop.recipes.stages.online import OnPolicy
from strop.train import annotate


def stage(tiny: Any, reward: str = "letters", **changes: Any) -> dict[str, Any]:
    training = tiny.training(steps=3, batch_size=3, **changes.pop("training", {}))
    return {
        "kind": "online",
        "name": "online",
        "data": tiny.data("prompts"),
        "rewards": [{"name": "custom", "function": f"{tiny.path('rewards.py')}:{reward}", "label": reward}],
        "num_generations": 4,
        "sampling": {"max_completion_length": 12, "temperature": 0.9},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "training": training,
        **changes,
    }


def test_the_policy_is_its_reference_at_the_first_step_and_moves_on(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    run = strop.run(tiny.recipe(tmp_path, stage(tiny)), display="quiet").path
    rows = small_runs.numbers(run)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(rows[0]["objective/kl"]) < 1e-4 and abs(rows[0]["rewards/margins"]) < 1e-5
    assert rows[0]["sampling/sampling_logp_difference/max"] < 1e-4
    assert all(row["objective/scores_margin"] > 0 and row["groups/kept"] == 3 for row in rows)
    assert all(row["num_tokens"] > 0 and 0 <= row["val/contain_eos_token"] <= 1 for row in rows)
    assert rows[2]["objective/kl"] != 0 and rows[2]["sampling/sampling_logp_difference/max"] < 1e-4


def test_a_reference_at_another_temperature_is_caught(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = annotate.sequence_logprobs

    def other(*arguments: Any, temperature: float, **settings: Any) -> Any:
        return honest(*arguments, temperature=temperature / 0.9, **settings)

    monkeypatch.setattr(annotate, "sequence_logprobs", other)
    with pytest.raises(RuntimeError, match="the reference is not the model that training starts from"):
        strop.run(tiny.recipe(tmp_path, stage(tiny)), display="quiet")


def test_ipo_starts_at_its_closed_form(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    ipo = stage(tiny, objective={"name": "ipo_sum", "tau": 0.1})
    rows = small_runs.numbers(strop.run(tiny.recipe(tmp_path, ipo), display="quiet").path)
    assert rows[0]["loss"] == pytest.approx(25.0, rel=1e-4)  # (1 / (2 tau))^2


def test_formatting_is_masked_in_sampled_answers_too(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    long = {"max_completion_length": 60, "temperature": 0.9}

    def numbers(mask: bool) -> list[dict[str, Any]]:
        made = stage(tiny, objective={"name": "dpo", "mask_formatting": mask}, sampling=long)
        found: list[dict[str, Any]] = small_runs.numbers(
            strop.run(tiny.recipe(tmp_path / str(mask), made), display="quiet").path
        )
        return found

    rows, plain = numbers(True), numbers(False)
    assert rows[0]["val/contain_eos_token"] > 0
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["grad_norm"] != plain[0]["grad_norm"] and rows[0]["logps/chosen"] == plain[0]["logps/chosen"]


def test_ties_train_nothing_and_are_counted(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    (tiny.folder / "same.py").write_text("def same(completion, row):\n    return 1.0\n")
    flat = [{"name": "custom", "function": f"{tiny.path('same.py')}:same", "label": "same"}]
    run = strop.run(tiny.recipe(tmp_path, stage(tiny, rewards=flat, missing_eos_penalty=0)), display="quiet").path
    rows = small_runs.numbers(run)
    assert all(row["pairs/tied"] == 3 and "loss" not in row for row in rows)
    assert small_runs.summary(run)["state"] == "finished"


def test_a_killed_stage_gives_the_numbers_of_the_unbroken_one(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    made = stage(tiny, training={"save_every": 1})
    whole = strop.run(tiny.recipe(tmp_path / "whole", made), display="quiet").path
    broken = tiny.recipe(tmp_path / "broken", made)
    assert small_runs.Child()(broken, at=["step", "online", 1], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    run = small_runs.only_run(tmp_path / "broken")
    strop.run(run, display="quiet")
    assert small_runs.numbers(run) == small_runs.numbers(whole)
    assert small_runs.weights(run, "online") == small_runs.weights(whole, "online")


def test_another_stage_can_be_the_reference(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """And after SFT the policy is not it, so the loss is not log 2."""
    sft = tiny.sft(steps=2)
    dpo = stage(tiny, model="@sft", reference=tiny.path("base"))
    rows = small_runs.numbers(strop.run(tiny.recipe(tmp_path / "a", sft, dpo), display="quiet").path)
    first = next(row for row in rows if row["stage"] == "online")
    assert abs(first["loss"] - math.log(2)) > 1e-4
    own = stage(tiny, model="@sft", reference="@sft")
    rows = small_runs.numbers(strop.run(tiny.recipe(tmp_path / "b", sft, own), display="quiet").path)
    first = next(row for row in rows if row["stage"] == "online")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_under_an_adapter_the_base_model_is_the_reference(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    lora = stage(tiny, adapter={"r": 4}, optimizer={"name": "adamw", "lr": 1e-2})
    run = strop.run(tiny.recipe(tmp_path, lora), display="quiet").path
    rows = small_runs.numbers(run)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and abs(rows[0]["objective/kl"]) < 1e-4
    assert rows[2]["objective/kl"] != 0 and rows[2]["sampling/sampling_logp_difference/max"] < 1e-4
    assert (run / "stages/online/adapter/adapter_config.json").is_file()


def test_a_loss_without_a_reference_holds_none(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    simpo = stage(tiny, objective={"name": "simpo"})
    rows = small_runs.numbers(strop.run(tiny.recipe(tmp_path, simpo), display="quiet").path)
    assert all("objective/kl" not in row and "loss" in row for row in rows)


def test_the_loss_is_the_pairs_own_and_the_kl_is_summed_over_each_answer(toys: Any) -> None:
    torch.manual_seed(0)
    logprobs = torch.randn(9, dtype=torch.float64, requires_grad=True)
    ref, old = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    batch: Batch = toys.bare_batch((4, 5), ref_logprobs=ref, old_logprobs=old)
    from strop.batch import Outputs

    for pairs in (DPO(beta=0.3), IPOSum(tau=0.2)):
        objective = OnPolicy(pairs)
        assert objective.needs == {"ref_logprobs", "old_logprobs"} and objective.reductions == pairs.reductions
        ours, theirs = objective(Outputs(logprobs), batch), pairs(Outputs(logprobs), batch)
        assert torch.equal(ours.losses[0], theirs.losses[0])
        kl = [float((logprobs - ref).detach()[part].sum()) for part in (slice(4), slice(4, 9))]
        assert ours.metrics["objective/kl"].tolist() == pytest.approx(kl)
        chosen, rejected = ours.metrics["rewards/chosen"], ours.metrics["rewards/rejected"]
        scale = getattr(pairs, "beta", None) or pairs.tau  # type: ignore[union-attr]
        assert float((chosen + rejected) / 2 / scale) == pytest.approx(sum(kl) / 2)


@pytest.mark.parametrize("name", ["online-dpo", "online-ipo"])
def test_the_built_in_recipes_run(name: str, tiny: Any, tmp_path: Path) -> None:
    changes = {
        "model": tiny.path("base"),
        "runs": str(tmp_path),
        "threads": 1,
        "device": "cpu",
        "data": tiny.data("prompts"),
        "eval_data": {"path": tiny.data("test"), "limit": 4},
        "rewards": [f"{tiny.path('rewards.py')}:letters"],
        "sampling.max_completion_length": 10,
        "training": {"steps": 1, "batch_size": 3, "max_length": 128},
    }
    result = strop.run(name, changes, display="quiet")
    assert result.state == "finished" and result.metrics[name]["letters"]["n"] == 4


def test_settings_that_cannot_work_are_refused(tiny: Any, tmp_path: Path) -> None:
    for changes, words in (
        ({"num_generations": 1}, "num_generations: must be at least 2"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty: must not be negative"),
        ({"rewards": []}, "a stage of kind online needs at least one"),
        ({"sampling": {"temperature": 0.0}}, "0 is greedy"),
        ({"sampling": {"top_p": 0.9}}, "training needs log-probs of what was really sampled"),
    ):
        with pytest.raises(ValueError, match=words):
            strop.run(tiny.recipe(tmp_path, {**stage(tiny), **changes}), display="quiet")
