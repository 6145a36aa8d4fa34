"""Advice on each kind of rows: the method, a command that can be run, and what was seen."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from strop.data.formats import KINDS, load_dataset
from strop.data.quality import Quality
from strop.recipes.advise import advise, as_text, means_of, number_of_parameters, to_json
from strop.recipes.config import load_recipe
from strop.recipes.decide import _BY_KIND, Advice, Means
from strop.recipes.memory import Size
from strop.recipes.preflight import check_inputs

SHARED = Path(__file__).parents[3] / "shared/data"


def on(folder: Path, *rows: dict[str, Any], means: Means | None = None, data: tuple[str, ...] = ()) -> Advice:
    """The advice on rows; its command must load, and find its data of the right kind."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen, found = advise(load_dataset(str(path)), str(path), means or Means(), data)
    checked(seen, found)
    return found


def checked(seen: Quality, found: Advice) -> None:
    text = as_text(seen, found, "shape")
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("  strop"))
    assert json.loads(json.dumps(to_json(seen, found)))["advice"]["method"] == found.method
    for number, command in enumerate(found.commands):
        words = shlex.split(command)
        assert words[:2] == ["strop", "run"] and (number or words[2] == found.method)
        recipe = load_recipe(words[2], words[3:])
        if number == 0 and not any(".py:" in word for word in words):
            check_inputs(recipe)


def pairs(num: int, chosen: str = "good one", rejected: str = "bad deed") -> list[dict[str, str]]:
    return [{"prompt": f"q{i}", "chosen": chosen, "rejected": rejected} for i in range(num)]


def test_every_kind_of_rows_has_advice() -> None:
    assert set(_BY_KIND) == set(KINDS)


def test_plain_pairs_begin_with_dpo(tmp_path: Path) -> None:
    found = on(tmp_path, *pairs(40))
    assert (found.method, found.settings) == ("dpo", ())
    assert found.commands == (f"strop run dpo model=MODEL data={tmp_path}/rows.jsonl",)
    assert found.runner_up is not None and found.runner_up[0] == "ipo"
    assert any("cdpo" in change for change in found.changes) and any("grpo" in change for change in found.changes)
    many = on(tmp_path, *pairs(2500))
    assert many.runner_up is not None and many.runner_up[0] == "reward"


def test_contradicting_pairs_begin_with_conservative_dpo_at_the_flip_rate(tmp_path: Path) -> None:
    agreed = pairs(40)
    flipped = pairs(10, chosen="bad deed", rejected="good one")
    found = on(tmp_path, *agreed, *flipped, *pairs(40)[10:])
    assert found.method == "cdpo"
    assert found.settings == ("objective.label_smoothing=0.15",)  # 10 of 40 contradict: (1 - sqrt(1 - 2/4)) / 2
    assert any("10 of 40 repeated judgements contradict" in finding for finding in found.findings)
    few = on(tmp_path, *agreed, *flipped[:3])
    assert few.method == "dpo" and any("too few to tell" in finding for finding in few.findings)


def test_pairs_told_apart_by_length_begin_with_the_averaged_loss(tmp_path: Path) -> None:
    longer = on(tmp_path, *pairs(60, chosen="a much longer answer", rejected="short"))
    assert longer.method == "dpo-norm" and "longer" in longer.why
    shorter = on(tmp_path, *pairs(60, chosen="short", rejected="a much longer answer"))
    assert shorter.method == "dpo-norm" and "shorter" in shorter.why
    assert on(tmp_path, *pairs(3, chosen="a much longer answer", rejected="short")).method == "dpo"  # chance


def test_pairs_with_a_base_model_or_a_verifier(tmp_path: Path) -> None:
    assert on(tmp_path, *pairs(40), means=Means(base=True)).method == "orpo"
    found = on(tmp_path, *pairs(40), means=Means(judge="http://judge"))
    assert found.method == "dpo" and found.runner_up is not None and found.runner_up[0] == "online-dpo"


def test_rankings_begin_with_a_reward_model(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b", "c"], "ranks": [2, 1, 3]} for i in range(9)]
    assert on(tmp_path, *rows).method == "reward-ranking"
    two = [{"prompt": f"q{i}", "completions": ["a", "b"], "ranks": [2, 1]} for i in range(9)]
    assert on(tmp_path, *two).method == "dpo"


@pytest.mark.parametrize(
    ("good", "bad", "settings"),
    [
        (10, 10, ()),
        (12, 10, ()),
        (10, 30, ("objective.desirable_weight=3",)),
        (40, 10, ("objective.undesirable_weight=3",)),
        (7, 10, ("objective.desirable_weight=1.43",)),
    ],
)
def test_labels_begin_with_kto_balanced(good: int, bad: int, settings: tuple[str, ...], tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": "x", "label": i < good} for i in range(good + bad)]
    found = on(tmp_path, *rows)
    assert (found.method, found.settings) == ("kto", settings)
    weights = {key: float(value) for key, _, value in (s.partition("=") for s in settings)}
    ratio = good * weights.get("objective.desirable_weight", 1)
    ratio /= bad * weights.get("objective.undesirable_weight", 1)
    assert 1 <= ratio <= 4 / 3 + 1e-9


def test_labels_of_one_kind_and_of_pairs(tmp_path: Path) -> None:
    good = [{"prompt": f"q{i}", "completion": "x", "label": True} for i in range(9)]
    assert on(tmp_path, *good).method == "sft"
    assert on(tmp_path, *({**row, "label": False} for row in good)).method is None
    both = [{"prompt": "q", "completion": text, "label": text == "x"} for text in ("x", "y")]
    found = on(tmp_path, *both)
    assert found.method == "kto" and found.runner_up is not None and found.runner_up[0] == "dpo"


def test_answers_begin_with_fine_tuning_unless_something_can_check_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": "words", "answer": "words"} for i in range(9)]
    assert on(tmp_path, *rows).method == "sft"
    found = on(tmp_path, *rows, means=Means(verifier="exact"))
    assert (found.method, found.settings) == ("grpo", ("rewards=exact",))
    base = on(tmp_path, *rows, means=Means(verifier="exact", base=True))
    assert base.method == "sft" and base.runner_up is not None and base.runner_up[0] == "grpo"
    chats = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 4
    assert on(tmp_path, *chats).method == "sft"
    assert on(tmp_path, {"text": "once"}, {"text": "twice"}).method == "sft"


def test_numbers_to_compare_with_are_a_verifier(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": str(i)} for i in range(9)]
    found = on(tmp_path, *rows)
    assert (found.method, found.settings) == ("grpo", ("rewards=number",))
    other = on(tmp_path, *({"prompt": row["prompt"], "target": row["answer"]} for row in rows))
    assert other.settings == ("rewards=[{name: number, column: target}]",)


def test_prompts_need_something_that_scores(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}"} for i in range(9)]
    nothing = on(tmp_path, *rows)
    assert nothing.method is None and nothing.commands == () and any("--verifier" in c for c in nothing.changes)
    judged = on(tmp_path, *rows, means=Means(judge="http://judge:1"))
    assert judged.method == "online-dpo" and any("http://judge:1" in finding for finding in judged.findings)
    own = on(tmp_path, *rows, means=Means(verifier="mine.py:good"))
    assert (own.method, own.settings) == ("grpo", ("rewards=mine.py:good",))


def test_steps_begin_with_a_process_reward_model(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completions": ["a", "b"], "labels": [True, False]} for i in range(9)]
    found = on(tmp_path, *rows)
    assert found.method == "process" and any("50% of 18 steps wrong" in finding for finding in found.findings)


def test_groups_go_on_where_they_are(tmp_path: Path) -> None:
    def group(*completions: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": "q", "completions": list(completions)}

    scored = group(*({"content": text, "score": float(i)} for i, text in enumerate("abc")))
    found = on(tmp_path, scored, scored)
    assert found.method == "select" and len(found.commands) == 2
    assert on(tmp_path, group(*({"content": text} for text in "abc"))).method == "score"
    assert on(tmp_path, group({"content": "a"}, {"content": "b"})).method == "dpo"
    assert on(tmp_path, group({"content": "a"})).method == "sft"
    assert on(tmp_path, group()).method is None


def test_what_does_not_fit_is_trained_with_an_adapter(tmp_path: Path) -> None:
    def memory(billions: float, gib: float | None) -> Advice:
        return on(tmp_path, *pairs(40), means=Means(size=Size.of(billions * 1e9), gib=gib))

    assert memory(7, 24).settings[0] == "adapter.r=16" and "optimizer.lr=5e-06" in memory(7, 24).settings
    assert "adapter.quantize=nf4" in memory(7, 10).settings
    assert memory(0.1, 24).settings == () and "all weights: " in memory(0.1, 24).memory
    assert "does not fit in 24 GiB" in memory(70, 24).memory
    assert "--gpu-memory" in memory(7, None).memory
    prompts = [{"prompt": f"q{i}", "answer": "1"} for i in range(9)]
    rollouts = on(tmp_path, *prompts, means=Means(size=Size.of(7e9), gib=24))
    assert "sampling.rows=32" in rollouts.settings and rollouts.method == "grpo"


def test_data_settings_and_paths_with_spaces_stand_in_the_command(tmp_path: Path) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_text(json.dumps({"question": "q", "good": "x", "bad": "y"}) + "\n")
    mapped = load_dataset(str(path), columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    given = ("columns.prompt=question", "columns.chosen=good", "columns.rejected=bad")
    seen, found = advise(mapped, str(path), Means(), given)
    checked(seen, found)
    assert "'data=" in found.commands[0] and "data.columns.chosen=good" in found.commands[0]


# What the command line says.


def test_arguments_are_checked(tmp_path: Path) -> None:
    for arguments, words in (
        ({"verifier": "nummer"}, "--verifier nummer: no such name: nummer; did you mean number"),
        ({"judge": "judge"}, "--judge judge: expected an address"),
        ({"gpu_memory": 0.0}, "--gpu-memory 0: expected GB"),
        ({"parameters": "big"}, "--parameters big: expected a number of weights, as 7B"),
        ({"model": "./nowhere"}, "./nowhere: no such folder"),
    ):
        blank: dict[str, Any] = dict.fromkeys(("verifier", "judge", "model", "parameters", "gpu_memory"))
        with pytest.raises(ValueError, match=words.replace(".", r"\.")):
            means_of(**{**blank, **arguments})
    with pytest.raises(ValueError, match="compares with a column 'answer' that no row has.* kept for rewards: gold"):
        on(tmp_path, {"prompt": "q", "gold": "1"}, means=Means(verifier="number"))


@pytest.mark.parametrize(("text", "number"), [("7B", 7e9), ("350m", 3.5e8), ("1.5e9", 1.5e9), ("0.6 B", 6e8)])
def test_numbers_of_parameters(text: str, number: float) -> None:
    assert number_of_parameters(text) == pytest.approx(number)


def test_a_models_folder_tells_its_size_and_whether_it_can_chat(tiny: Any, tmp_path: Path) -> None:
    means = means_of(None, None, tiny.path("base"), None, None)
    assert means.size is not None and means.size.parameters == pytest.approx(393_856, rel=0.01)
    assert means.size.layers == 2 and means.size.width == 128 and not means.base
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_text("{}")
    assert means_of(None, None, str(bare), None, None).base


@pytest.mark.parametrize("name", ["sft", "pairs", "prompts", "test"])
def test_the_embedded_worlds_rows(name: str, tiny: Any) -> None:
    seen, found = advise(load_dataset(tiny.data(name)), tiny.data(name), Means())
    checked(seen, found)
    assert found.method == {"sft": "sft", "pairs": "dpo", "prompts": "grpo", "test": "grpo"}[name]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("hh-rlhf/harmless-base-test.jsonl.gz", "dpo"),
        ("gsm8k/train.jsonl.gz", "grpo"),
        ("self_instruct/seed_tasks.jsonl", "sft"),
        ("prmbench/subset400.jsonl.gz", "process"),
        ("ifeval/ifeval_541.jsonl.gz", None),
    ],
)
def test_real_data(path: str, method: str | None) -> None:
    if not (SHARED / path).is_file():
        pytest.skip(f"{SHARED / path} is not there")
    seen, found = advise(load_dataset(str(SHARED / path)), str(SHARED / path), Means())
    checked(seen, found)
    assert found.method == method
