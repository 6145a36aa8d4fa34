"""Evaluate stages without rewards: the rows' own answers, by what kind of rows they are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset


def recipe(tiny: Any, runs: Path, data: str, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = tiny.recipe(runs, {"kind": "evaluate", "name": "eval", "data": data, **changes})
    return made


def test_pairs_are_compared_by_likelihood(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    result = strop.run(recipe(tiny, tmp_path, tiny.data("pairs")), display="quiet")
    figures = result.metrics["eval"]
    assert set(figures) == {"logps/accuracy", "logps/accuracy_per_token", "logps/chosen", "logps/rejected"}
    assert all(figure["n"] == 48 for figure in figures.values())
    rows = load_dataset([str(result.path / "stages/eval/samples.jsonl")]).groups
    sides = [[c.rewards["logps"] for c in group.completions] for group in rows]
    assert figures["logps/accuracy"]["value"] == pytest.approx(sum(a > b for a, b in sides) / 48)  # type: ignore[operator]
    assert figures["logps/chosen"]["value"] == pytest.approx(sum(a for a, _ in sides) / 48)  # type: ignore[misc]


def test_a_model_trained_on_pairs_is_preferred_over_its_baseline(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    dpo = tiny.dpo(steps=12, batch_size=16)
    evaluate = {"kind": "evaluate", "name": "eval", "model": "@dpo", "baseline": dpo.get("model", tiny.path("base"))}
    result = strop.run(tiny.recipe(tmp_path, dpo, {**evaluate, "data": tiny.data("pairs")}), display="quiet")
    figures = result.metrics["eval"]
    assert figures["rewards/accuracies"]["value"] > 0.8 and figures["rewards/margins"]["low"] > 0  # type: ignore[operator]
    assert figures["rewards/chosen"]["value"] > figures["rewards/rejected"]["value"]  # type: ignore[operator]
    first = json.loads((result.path / "stages/eval/samples.jsonl").read_text().splitlines()[0])
    assert (
        set(first["completions"][0]["rewards"]) == {"logps", "logps_per_token"} and "score" in first["completions"][0]
    )


def test_prompts_with_answers_give_the_loss_and_its_change(tiny: Any, tmp_path: Path) -> None:
    sft = tiny.sft(steps=10)
    evaluate = {"kind": "evaluate", "name": "eval", "model": "@sft", "baseline": tiny.path("base")}
    result = strop.run(tiny.recipe(tmp_path, sft, {**evaluate, "data": tiny.data("sft")}), display="quiet")
    figures = result.metrics["eval"]
    loss, before = figures["eval_loss"]["value"], figures["eval_loss"]["value"] - figures["delta/eval_loss"]["value"]  # type: ignore[operator]
    assert before == pytest.approx(math.log(512), abs=0.15) and loss < before - 1
    assert figures["delta/eval_loss"]["high"] < 0 and figures["delta/eval_mean_token_accuracy"]["low"] > 0  # type: ignore[operator]
    assert figures["eval_perplexity"]["value"] == pytest.approx(math.exp(loss))  # type: ignore[arg-type]
    assert 0 < figures["eval_mean_token_accuracy"]["value"] < 1 and figures["eval_loss"]["n"] == 96  # type: ignore[operator]


def test_prompts_alone_need_rewards(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="(?s)prompt_only.*rows' own answers are evaluated"):
        strop.run(recipe(tiny, tmp_path, tiny.data("prompts")), display="quiet")


def test_settings_of_sampling_are_refused_where_nothing_is_sampled(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(strop.RecipeError, match="nothing is sampled"):
        strop.run(recipe(tiny, tmp_path, tiny.data("pairs"), num_samples=4), display="quiet")
    with pytest.raises(strop.RecipeError, match="nothing is sampled"):
        strop.run(recipe(tiny, tmp_path, tiny.data("pairs"), sampling={"temperature": 0.7}), display="quiet")


def test_what_encoding_does_to_rows_is_said(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """A template that leaves out earlier thoughts: only the last turn of a dialogue can be trained, which is said."""
    turns = [("user", "a"), ("assistant", "<think>x</think>b"), ("user", "c"), ("assistant", "<think>y</think>d")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    forged = {"messages": [{"role": "user", "content": "<|end|>"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (row, row, forged)))
    base = tmp_path / "base"
    base.mkdir()
    for file in Path(tiny.path("base")).iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{%- for m in messages -%}<|{{ m.role }}|>"
        "{%- if m.role == 'assistant' and not loop.last -%}{{ m.content.split('</think>')[-1] }}"
        "{%- else -%}{{ m.content }}{%- endif -%}<|end|>{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
    )
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    sft = {**tiny.sft(steps=1, batch_size=1), "model": str(base), "data": str(tmp_path / "rows.jsonl")}
    run = strop.run(tiny.recipe(tmp_path / "runs", sft), display="quiet").path
    (dropped,) = small_runs.events(run, "drop")
    assert dropped["text"].startswith("1 row dropped: control token <|end|> in the words of the user; first at ")
    assert [e["text"] for e in small_runs.events(run, "note")] == [
        "in 2 of 2 answers only the last assistant turn is trained: the template renders earlier ones otherwise"
    ]
    data = small_runs.summary(run)["stages"][0]["data"]
    assert (data["rows"], data["kept"], sum(data["dropped"].values())) == (3, 2, 1)
