"""Evaluate stages that sample: win rates by judges and rules, KL, subsets, several samples, overlap with training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop
from strop.data.formats import load_dataset
from strop.rewards.judge import judged_text
from strop.types import Completion, Group

JUDGE = '''
def judge(task, inputs):
    """The longer response, and nothing where both are as long."""
    first, second = (len(text) for text in inputs["responses"])
    return "tie" if first == second else ("A" if first > second else "B")


def place(task, inputs):
    return "A"
'''


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "judge.py"
    path.write_text(JUDGE)
    return path


def stage(tiny: Any, name: str, model: str, **changes: Any) -> dict[str, Any]:
    letters = {"name": "custom", "label": "letters", "function": f"{tiny.path('rewards.py')}:letters"}
    plain = {"kind": "evaluate", "name": name, "model": model, "data": tiny.data("test"), "rewards": [letters]}
    return {**plain, "sampling": {"temperature": 1.0, "max_completion_length": 6}, **changes}


def by_judge(judge: Path, function: str) -> dict[str, Any]:
    backend = {"name": "function", "function": f"{judge}:{function}"}
    return {"name": "judge", "compare": {"backend": backend}}


def read(completion: Completion) -> str:
    """What a judge reads of an answer: untrained models write tags of thinking, too."""
    thinks = "<think>" in completion.text or "</think>" in completion.text
    return judged_text(completion) if thinks else completion.text


def groups_of(result: Any, name: str) -> tuple[Group, ...]:
    return load_dataset([str(result.path / f"stages/{name}/samples.jsonl")]).groups


def test_win_rates_by_a_judge_rules_and_scores(tiny: Any, judge: Path, tmp_path: Path) -> None:
    base = tiny.path("base")
    rules = {"name": "rules", "rules": [{"name": "shorter", "unit": "characters", "share": 0.0}]}
    stages = (
        stage(tiny, "start", base),
        tiny.sft(steps=6),
        stage(tiny, "longer", "@sft", against="@start", labeller=by_judge(judge, "judge")),
        stage(tiny, "placed", "@sft", against="@start", labeller=by_judge(judge, "place")),
        stage(tiny, "shorter", "@sft", against="@start", labeller=rules),
        stage(tiny, "scores", "@sft", against="@start", labeller={"name": "scores"}),
    )
    result = strop.run(tiny.recipe(tmp_path, *stages), display="quiet")
    theirs = groups_of(result, "start")

    def rate(name: str, of: Any) -> float:
        ours = groups_of(result, name)
        both = [(of(a.completions[0]), of(b.completions[0])) for a, b in zip(ours, theirs, strict=True)]
        return sum((x > y) + (x == y) / 2 for x, y in both) / len(both)

    longer, placed = result.metrics["longer"], result.metrics["placed"]
    assert longer["win_rate/judge"]["value"] == pytest.approx(rate("longer", lambda c: len(read(c))))
    assert longer["win_rate/judge/flip_rate"]["value"] == 0 and longer["win_rate/judge"]["n"] == 12
    parts = [longer[f"win_rate/judge/{name}"]["value"] for name in ("wins", "ties", "losses")]
    won, tied, lost = map(float, parts)  # type: ignore[arg-type]
    assert won + tied + lost == pytest.approx(1) and won + tied / 2 == pytest.approx(longer["win_rate/judge"]["value"])
    assert placed["win_rate/judge"]["value"] == 0.5 and placed["win_rate/judge/ties"]["value"] == 1
    flips, bias = placed["win_rate/judge/flip_rate"]["value"], placed["win_rate/judge/position_bias"]["value"]
    assert flips == bias == pytest.approx(1, abs=0.1)  # equal answers are not asked about
    shorter, scores = result.metrics["shorter"], result.metrics["scores"]
    assert shorter["win_rate/rules"]["value"] == pytest.approx(rate("shorter", lambda c: -len(c.text)))
    assert "win_rate/rules/flip_rate" not in shorter
    assert scores["win_rate/scores"]["value"] == scores["win_rate/letters"]["value"]
    told = groups_of(result, "longer")[0].completions[0]
    assert told.facts["preferred"]["probability"] in (0.0, 0.5, 1.0) and "preferred" in told.reasons


def test_earlier_answers_are_weighed_as_this_stage_weighs(tiny: Any, tmp_path: Path) -> None:
    """Fewer letters win where letters count against an answer, though the earlier stage counted them for it."""
    base = tiny.path("base")
    letters = {"name": "custom", "label": "letters", "function": f"{tiny.path('rewards.py')}:letters", "weight": -1.0}
    hot = {"temperature": 1.5, "max_completion_length": 6}
    stages = (
        stage(tiny, "start", base),
        stage(tiny, "eval", base, against="@start", labeller={"name": "scores"}, rewards=[letters], sampling=hot),
    )
    figures = strop.run(tiny.recipe(tmp_path, *stages), display="quiet").metrics["eval"]
    wins, fewer = (figures[f"win_rate/{name}"]["value"] for name in ("letters", "scores"))
    assert 0 < wins < 1 and fewer == pytest.approx(1 - wins)  # type: ignore[operator]


def test_a_judge_that_fails_is_no_draw(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def judge(task, inputs):\n    return 'neither, really'\n")
    labeller = by_judge(tmp_path / "judge.py", "judge")
    one = stage(tiny, "eval", tiny.path("base"), against=tiny.data("sft"), labeller=labeller, data=tiny.data("sft"))
    one["data"] = {"path": tiny.data("sft"), "limit": 3}
    with pytest.raises(ValueError, match="the judge left all of 3 comparisons without an answer"):
        strop.run(tiny.recipe(tmp_path / "runs", one), display="quiet")


def test_the_kl_to_a_reference_both_ways(tiny: Any, tmp_path: Path) -> None:
    """Zero to itself; after training both estimates are of one number, and the whole one varies less."""
    base = tiny.path("base")
    stages = (
        stage(tiny, "itself", base, reference=base),
        tiny.sft(steps=12),
        stage(tiny, "moved", "@sft", reference=base, num_samples=8, against="@itself"),
    )
    result = strop.run(tiny.recipe(tmp_path, *stages), display="quiet")
    itself, moved = result.metrics["itself"], result.metrics["moved"]
    for name in ("kl/sequence", "kl/sequence_k1", "kl/per_token"):
        assert itself[name]["value"] == pytest.approx(0, abs=1e-4)
    whole, single = moved["kl/sequence"], moved["kl/sequence_k1"]
    assert whole["low"] > 1 and whole["n"] == 96  # type: ignore[operator]
    assert abs(whole["value"] - single["value"]) < 0.2 * whole["value"]  # type: ignore[operator]
    assert moved["delta/kl/sequence"]["value"] == pytest.approx(whole["value"], abs=1e-3)
    numbers = [c.facts["kl"] for g in groups_of(result, "moved") for c in g.completions]
    assert all(n["sequence"] >= 0 for n in numbers)  # type: ignore[operator]
    spread = {key: np.std([n[key] for n in numbers]) for key in ("sequence", "sequence_k1")}  # type: ignore[arg-type]
    assert spread["sequence"] < spread["sequence_k1"]
    lengths = [c.facts["completion"]["tokens"] for g in groups_of(result, "moved") for c in g.completions]
    ratios = [n["sequence"] / n["per_token"] for n in numbers]  # type: ignore[operator]
    assert ratios == pytest.approx(lengths)


def test_a_reference_needs_samples_and_the_same_tokens(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.path("base")
    for sampling in ({"temperature": 0.0}, {"temperature": 1.0, "top_p": 0.9}):
        with pytest.raises(strop.RecipeError, match="drawn from the whole distribution"):
            strop.run(tiny.recipe(tmp_path, stage(tiny, "eval", base, reference=base, sampling=sampling)))
    other = tmp_path / "other"
    other.mkdir()
    for file in Path(base).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("strop.recipes.stages.evaluate_sampled.evaluate_samples", sampled_in_vain)
    with pytest.raises(ValueError, match="has another vocabulary than"):
        strop.run(tiny.recipe(tmp_path / "runs", stage(tiny, "eval", base, reference=str(other))), display="quiet")


def sampled_in_vain(*_: Any) -> None:
    raise AssertionError("sampled, though what it is held against cannot be used")


def test_answers_to_other_prompts_are_refused_before_sampling(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others.jsonl").write_text(json.dumps({"prompt": "Who?", "completion": "I."}) + "\n")
    monkeypatch.setattr("strop.recipes.stages.evaluate_sampled.evaluate_samples", sampled_in_vain)
    one = stage(tiny, "eval", tiny.path("base"), against=str(tmp_path / "others.jsonl"))
    with pytest.raises(ValueError, match="eval.against: .*others.jsonl answers none of this stage's 12 rows"):
        strop.run(tiny.recipe(tmp_path / "runs", one), display="quiet")


def test_a_reference_alone_tells_the_distance_lengths_and_style(tiny: Any, tmp_path: Path) -> None:
    """Nobody judges the answers; of the model itself the KL is 0."""
    one = stage(tiny, "eval", tiny.path("base"), rewards=[], reference=tiny.path("base"))
    figures = strop.run(tiny.recipe(tmp_path, one), display="quiet").metrics["eval"]
    assert figures["kl/sequence"]["value"] == pytest.approx(0, abs=1e-6) and figures["kl/sequence"]["n"] == 12
    assert figures["completions/mean_length"]["n"] == 12 and "style/words" in figures


def test_several_samples_subsets_and_what_the_model_was_trained_on(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    """Half of the test prompts stand in the training file; a verifier's rewards are told by level and for k samples."""
    rows = [json.loads(line) for line in Path(tiny.data("test")).read_text().splitlines()]
    for number, row in enumerate(rows):
        row["level"] = "even" if number % 2 == 0 else "odd"
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = [{"prompt": row["prompt"], "completion": "12"} for row in rows if row["level"] == "even"]
    (tmp_path / "seen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seen))
    (tmp_path / "rewards.py").write_text("def even(completion, row):\n    return row['level'] == 'even'\n")
    reward = {"name": "custom", "function": f"{tmp_path / 'rewards.py'}:even", "label": "even"}
    wanted = {"data": str(tmp_path / "test.jsonl"), "rewards": [reward], "num_samples": 4, "by": "level"}
    stages = (
        {**tiny.sft(steps=2), "data": [tiny.data("sft"), str(tmp_path / "seen.jsonl")]},
        stage(tiny, "eval", "@sft", trained_on=str(tmp_path / "test.jsonl"), **wanted),
    )
    result = strop.run(tiny.recipe(tmp_path / "runs", *stages), display="quiet")
    figures = result.metrics["eval"]
    assert (figures["even/level=even"]["value"], figures["even/level=odd"]["value"]) == (1, 0)
    assert figures["even/level=even"]["n"] == 24 and figures["even"]["value"] == 0.5
    assert figures["pass@4/even"]["value"] == figures["maj@4/even"]["value"] == 0.5
    assert figures["style/words"]["n"] == 48 and figures["completions/mean_length"]["value"] <= 6  # type: ignore[operator]
    assert figures["completions/max_length"]["value"] == 6 and "style/headings" not in figures
    summary = {s["name"]: s for s in small_runs.summary(result.path)["stages"]}
    (first, second) = summary["eval"]["data"]["overlap"]
    trained = {g.prompt_text for g in load_dataset([tiny.data("sft"), str(tmp_path / "seen.jsonl")]).groups}
    same = sum(g.prompt_text in trained for g in load_dataset([str(tmp_path / "test.jsonl")]).groups)
    assert first["stage"] == "sft" and first["rows"] == 96 + len(seen) and first["prompts"] == len(rows)
    assert first["same"] == same >= len(seen) and first["shared"] >= same
    assert (second["stage"], second["same"], second["shared"]) == ("trained_on", len(rows), len(rows))
    assert len(second["examples"]) == 3 and second["examples"][0]["judged"].endswith("test.jsonl:1")


def test_settings_that_nothing_reads_are_refused(tiny: Any, judge: Path, tmp_path: Path) -> None:
    base = tiny.path("base")
    wrong = (
        ({"num_samples": 4, "sampling": {"temperature": 0.0}}, "would be the same"),
        ({"labeller": by_judge(judge, "judge")}, "has nothing to compare with"),
        ({"labeller": {"name": "scores"}, "rewards": [], "against": tiny.data("sft")}, "no scores to compare"),
        ({"rewards": [], "reference": base, "sampling": {"temperature": 0.0}}, "drawn from the whole distribution"),
        ({"answer": "number"}, "is for maj@k"),
        ({"answer": "(", "num_samples": 2}, "no regular expression"),
        ({"by": "nowhere"}, "eval.by: no row has a text or number in a column 'nowhere'; columns: answer"),
    )
    for changes, words in wrong:
        with pytest.raises(ValueError, match=words):
            strop.run(tiny.recipe(tmp_path, stage(tiny, "eval", base, **changes)), display="quiet")
