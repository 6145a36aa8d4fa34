"""Evaluate stages without rewards: the rows' own answers, by what kind of rows they are."""

from __future__ import annotations

import json
import math
import shutil
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


LETTERS = {"name": "custom", "label": "letters"}


def sampled(tiny: Any, name: str, model: str, **changes: Any) -> dict[str, Any]:
    """A stage that samples four tokens a prompt, scored by the letters in them."""
    function = f"{tiny.path('rewards.py')}:letters"
    stage = {"kind": "evaluate", "name": name, "model": model, "data": tiny.data("test")}
    sampling = {"temperature": 1.0, "max_completion_length": 6}
    return {**stage, "rewards": [{**LETTERS, "function": function}], "sampling": sampling, **changes}


def test_an_earlier_evaluation_stands_in_for_a_baseline(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """The same figures as with the other model sampled anew; and nothing is sampled twice."""
    base, sft = tiny.path("base"), tiny.sft(steps=10)
    stages = (
        sampled(tiny, "start", base),
        sft,
        sampled(tiny, "after", "@sft", against="@start"),
        sampled(tiny, "with-itself", "@sft", against="@after"),
    )
    result = strop.run(tiny.recipe(tmp_path, *stages), display="quiet")
    start, after, itself = (result.metrics[name] for name in ("start", "after", "with-itself"))
    difference = after["letters"]["value"] - start["letters"]["value"]  # type: ignore[operator]
    assert after["delta/letters"]["value"] == pytest.approx(difference) and after["delta/letters"]["n"] == 12
    assert itself["win_rate/letters"]["value"] == pytest.approx(0.5, abs=0.5)
    rows = [load_dataset([str(result.path / f"stages/{name}/samples.jsonl")]).groups for name in ("after", "start")]
    wins = [
        (a.completions[0].rewards["letters"] > b.completions[0].rewards["letters"])  # type: ignore[operator]
        + (a.completions[0].rewards["letters"] == b.completions[0].rewards["letters"]) / 2
        for a, b in zip(*rows, strict=True)
    ]
    assert after["win_rate/letters"]["value"] == pytest.approx(sum(wins) / 12)
    summary = {s["name"]: s for s in small_runs.summary(result.path)["stages"]}
    assert summary["after"]["inputs"]["against"] == "@start" and "delta/letters" not in start


def test_a_file_of_answers_is_scored_where_it_was_not(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    rows = load_dataset([tiny.data("test")]).groups[:5]
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps({"prompt": g.prompt_text, "completion": "abc"}) + "\n" for g in rows))
    stage = sampled(tiny, "eval", tiny.path("base"), against=str(others))
    result = strop.run(tiny.recipe(tmp_path / "runs", stage), display="quiet")
    figures = result.metrics["eval"]
    mine = load_dataset([str(result.path / "stages/eval/samples.jsonl")]).groups[:5]
    mean = sum(g.completions[0].rewards["letters"] or 0.0 for g in mine) / 5
    assert figures["delta/letters"]["n"] == 5 and figures["letters"]["n"] == 12
    assert figures["delta/letters"]["value"] == pytest.approx(mean - 3)  # a, b and c
    notes = [e["text"] for e in small_runs.events(result.path, "note")]
    assert any("5 of 12 rows are answered in" in text for text in notes)
    assert any("are scored by this stage's rewards" in text for text in notes)


def test_answers_to_other_prompts_are_no_comparison(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "others.jsonl").write_text(json.dumps({"prompt": "else", "completion": "abc"}) + "\n")
    stage = sampled(tiny, "eval", tiny.path("base"), against=str(tmp_path / "others.jsonl"))
    with pytest.raises(ValueError, match="answers none of this stage's 12 rows"):
        strop.run(tiny.recipe(tmp_path / "runs", stage), display="quiet")
    with pytest.raises(strop.RecipeError, match="stands in the place of baseline"):
        strop.run(tiny.recipe(tmp_path / "runs", {**stage, "baseline": tiny.path("base")}), display="quiet")


def test_given_answers_against_an_earlier_evaluation_are_as_against_the_model(tiny: Any, tmp_path: Path) -> None:
    """The log-probs and losses that an evaluation wrote down give what reading the rows again would."""
    base = tiny.path("base")
    for data, names in (("pairs", ("rewards/accuracies", "rewards/margins")), ("sft", ("delta/eval_loss",))):
        given = {"kind": "evaluate", "data": tiny.data(data)}
        stages = (
            {**given, "name": "start", "model": base},
            tiny.sft(steps=4),
            {**given, "name": "written", "model": "@sft", "against": "@start"},
            {**given, "name": "read", "model": "@sft", "baseline": base},
        )
        result = strop.run(tiny.recipe(tmp_path / data, *stages), display="quiet")
        written, read = result.metrics["written"], result.metrics["read"]
        assert set(written) == set(read)
        for name in names:
            for key in ("value", "low", "high"):
                assert written[name][key] == pytest.approx(read[name][key], abs=1e-6), (name, key)


def test_a_reward_model_is_asked_for_its_accuracy_and_calibration(tiny: Any, tmp_path: Path) -> None:
    """The figures are those of its scores in samples.jsonl; another one is held against it, as model or as samples."""
    pairs = [json.loads(line) for line in Path(tiny.data("pairs")).read_text().splitlines()]
    for number, row in enumerate(pairs):
        row["kind"] = "even" if number % 2 == 0 else "odd"
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    ask = {"kind": "evaluate", "data": str(tmp_path / "pairs.jsonl"), "by": "kind"}
    stages = (
        {**tiny.reward(steps=1), "name": "early"},
        {**ask, "name": "before", "model": "@early"},
        tiny.reward(steps=12, batch_size=16),
        {**ask, "name": "after", "model": "@reward", "against": "@before"},
        {**ask, "name": "again", "model": "@reward", "baseline": "@early"},
    )
    result = strop.run(tiny.recipe(tmp_path / "runs", *stages), display="quiet")
    after, again = result.metrics["after"], result.metrics["again"]
    rows = load_dataset([str(result.path / "stages/after/samples.jsonl")]).groups
    sides = [[c.score for c in group.completions] for group in rows]
    right = [float(a > b) for a, b in sides]  # type: ignore[operator]
    assert after["accuracy"]["value"] == pytest.approx(sum(right) / 48) and after["accuracy"]["n"] == 48
    halves = [after[f"accuracy/kind={kind}"]["value"] for kind in ("even", "odd")]
    assert halves == pytest.approx([sum(right[0::2]) / 24, sum(right[1::2]) / 24])
    nll = sum(math.log1p(math.exp(b - a)) for a, b in sides) / 48  # type: ignore[operator]
    assert after["nll"]["value"] == pytest.approx(nll) and after["nll_calibrated"]["value"] <= nll + 1e-9  # type: ignore[operator]
    assert {"ece", "brier", "temperature", "len_corr", "accuracy_chosen_shorter"} <= set(after)
    for name in ("delta/accuracy", "delta/nll", "delta/brier"):
        assert after[name]["value"] == pytest.approx(again[name]["value"], abs=1e-6)
    before = result.metrics["before"]
    assert after["delta/nll"]["value"] == pytest.approx(after["nll"]["value"] - before["nll"]["value"], abs=1e-6)  # type: ignore[operator]


def test_a_reward_model_takes_comparisons_only(tiny: Any, tmp_path: Path) -> None:
    stages = (tiny.reward(steps=1), {"kind": "evaluate", "name": "eval", "model": "@reward", "data": tiny.data("sft")})
    with pytest.raises(ValueError, match="is a reward model, which is asked about comparisons"):
        strop.run(tiny.recipe(tmp_path, *stages), display="quiet")


def test_a_reward_model_writes_nothing_and_is_compared_with_its_kind(tiny: Any, tmp_path: Path) -> None:
    base = tiny.path("base")
    shutil.copytree(base, tmp_path / "rm")
    config = json.loads(Path(base, "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    (tmp_path / "rm/config.json").write_text(json.dumps(config))
    rm, pairs = str(tmp_path / "rm"), tiny.data("pairs")
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        (sampled(tiny, "eval", rm), "eval.model: .*rm is a reward model, which writes no answers"),
        (sampled(tiny, "eval", base, baseline=rm), "eval.baseline: .*rm is a reward model, but .*base writes answers"),
        (
            {"kind": "evaluate", "name": "eval", "model": rm, "data": pairs, "baseline": base},
            "base writes answers, but",
        ),
    )
    for stage, words in wrong:
        with pytest.raises(ValueError, match=words):
            strop.run(tiny.recipe(tmp_path / "runs", stage), display="quiet")
