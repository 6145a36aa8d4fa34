"""The adapter to lm-evaluation-harness: its own Hugging Face backend gives the same figures, question by question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra")

import strop
from strop.data.formats import load_dataset
from strop.evaluate import harness
from strop.evaluate.harness import Answerer
from strop.evaluate.statistics import wilson
from strop.model.load import load, load_tokenizer

pytestmark = pytest.mark.slow  # its imports and its own backend take most of a minute

COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
metadata: {{version: 1.0}}
"""
TASKS = {
    "choose": """
task: choose
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "write": """
task: write
output_type: generate_until
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["\\n", "ab"], max_gen_toks: 9, do_sample: false}
metric_list: [{metric: exact_match}]
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: digits, filter: [{function: regex, regex_pattern: "([0-9]+)"}, {function: take_first}]}
""",
    "read": """
task: read
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
}
NUM = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small tasks over one file of questions."""
    here = tmp_path_factory.mktemp("tasks")
    rows = [
        {"q": f"What is {a} + {7 * a % 5}?" + " more" * (a % 3), "choices": [" 1", f" {a}", " twelve"], "gold": a % 3}
        for a in range(NUM)
    ]
    (here / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = COMMON.format(file=here / "questions.jsonl")
    for name, text in TASKS.items():
        kept = [line for line in common.splitlines() if line.split(":")[0] not in text]
        (here / f"{name}.yaml").write_text("\n".join(kept) + text)
    return here


@pytest.fixture(scope="module")
def theirs(tiny: Any, folder: Path) -> dict[str, Any]:
    """The same tasks by the harness's own backend."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tiny.path("base")
    model = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(path), tokenizer=AutoTokenizer.from_pretrained(path),
        batch_size=3, device="cpu",
    )  # fmt: skip
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model, tasks=list(TASKS), task_manager=TaskManager(include_path=str(folder)), log_samples=True,
        bootstrap_iters=0,
    )  # fmt: skip
    return found


def answerer(tiny: Any, **changes: Any) -> Answerer:
    path = tiny.path("base")
    tokenizer = load_tokenizer(path)
    settings = {"max_length": 128, "max_completion_length": 16, "max_tokens": 300, "seed": 0, **changes}
    return Answerer(load(path), tokenizer, stop_ids=frozenset({int(tokenizer.eos_token_id)}), **settings)


def test_figures_are_those_of_its_own_backend(tiny: Any, folder: Path, theirs: Any, tmp_path: Path) -> None:
    tasks = {"names": list(TASKS), "folder": str(folder)}
    stage = {"kind": "evaluate", "name": "eval", "model": tiny.path("base"), "tasks": tasks}
    result = strop.run(tiny.recipe(tmp_path, stage), display="quiet")
    figures, want = result.metrics["eval"], theirs["results"]
    assert figures["choose/acc"]["value"] == pytest.approx(want["choose"]["acc,none"])
    assert figures["choose/acc_norm"]["value"] == pytest.approx(want["choose"]["acc_norm,none"])
    assert figures["write/exact_match,whole"]["value"] == pytest.approx(want["write"]["exact_match,whole"])
    for name in ("word_perplexity", "bits_per_byte"):
        assert figures[f"read/{name}"]["value"] == pytest.approx(want["read"][f"{name},none"], rel=1e-5)
    share = wilson(round(NUM * figures["choose/acc"]["value"]), NUM)  # type: ignore[operator]
    assert (figures["choose/acc"]["low"], figures["choose/acc"]["n"]) == (pytest.approx(share.low), NUM)
    groups = load_dataset([str(result.path / "stages/eval/samples.jsonl")]).groups
    assert len(groups) == 3 * NUM and {g.row["lm_eval_task"] for g in groups} == set(TASKS)
    written = {g.origin: g.completions[0].text for g in groups}
    assert written == {**written, **{f"write:{s['doc_id']}": s["resps"][0][0] for s in theirs["samples"]["write"]}}


def test_each_choice_has_the_log_prob_that_its_own_backend_gives(tiny: Any, theirs: Any) -> None:
    ours = answerer(tiny)
    requests = []
    for record in theirs["samples"]["choose"]:
        for context, continuation in record["arguments"]:
            requests.append(((context, continuation), *ours._encode_pair(context, continuation)))
    want = [answer[0] for record in theirs["samples"]["choose"] for answer in record["resps"]]
    got = ours._loglikelihood_tokens(requests)
    assert [p for p, _ in got] == pytest.approx([p for p, _ in want], abs=1e-4)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in want]


def test_the_likeliest_continuation_is_known_as_such(tiny: Any) -> None:
    ours = answerer(tiny)
    context = ours.tok_encode("What is 1 + 1?")
    text = ours._drawn(["What is 1 + 1?"], harness._Wanted.of({"max_gen_toks": 4, "do_sample": False}), 0)[0]
    best, other = ours.tok_encode(text, add_special_tokens=False), ours.tok_encode("zq", add_special_tokens=False)
    (_, first), (_, second) = ours._loglikelihood_tokens([(None, context, best), (None, context, other)])
    assert first and not second


def test_prompts_that_are_too_long_lose_their_beginning(tiny: Any) -> None:
    ours = answerer(tiny, max_length=12)
    long, ids = list(range(20, 60)), [5, 6]
    (whole,), (cut,) = (
        ours._loglikelihood_tokens([(None, long, ids)]),
        ours._loglikelihood_tokens([(None, long[-11:], ids)]),
    )
    assert whole == cut
    with pytest.raises(ValueError, match="a continuation of 20 tokens"):
        ours._loglikelihood_tokens([(None, [1], list(range(20)))])


def test_settings_of_drawing_are_read_as_the_harness_has_them() -> None:
    read = harness._Wanted.of
    assert read({"until": "x", "max_gen_toks": 5, "temperature": 0.7}).temperature == 0.7
    assert read({"do_sample": False, "temperature": 0.7}).temperature == 0
    assert read({}).temperature == 0 and read({}).max_length is None
    both = read({"until": ["a", ""], "max_new_tokens": 3, "top_p": 0.9, "top_k": 40, "temperature": 1.0})
    assert (both.stops, both.max_length, both.top_p, both.top_k) == (("a",), 3, 0.9, 40)
    assert harness._cut("one two three", ["two", "three"]) == "one " and harness._cut("one", []) == "one"


def test_a_trained_model_is_held_against_an_earlier_evaluation_question_by_question(
    tiny: Any, folder: Path, tmp_path: Path
) -> None:
    tasks = {"names": ["choose", "write"], "folder": str(folder), "limit": 6}
    ask = {"kind": "evaluate", "tasks": tasks}
    base = tiny.path("base")
    stages = (
        {**ask, "name": "start", "model": base},
        tiny.sft(steps=10),
        {**ask, "name": "after", "model": "@sft", "against": "@start"},
        {**ask, "name": "again", "model": "@sft", "baseline": base},
    )
    result = strop.run(tiny.recipe(tmp_path, *stages), display="quiet")
    start, after, again = (result.metrics[name] for name in ("start", "after", "again"))
    for name in ("choose/acc", "write/exact_match,digits"):
        difference = after[name]["value"] - start[name]["value"]  # type: ignore[operator]
        assert after[f"delta/{name}"]["value"] == pytest.approx(difference) and after[f"delta/{name}"]["n"] == 6
        assert after[f"delta/{name}"] == again[f"delta/{name}"]


def test_an_unknown_task_is_told_with_the_nearest(tiny: Any, folder: Path, tmp_path: Path) -> None:
    stage = {"kind": "evaluate", "name": "eval", "model": tiny.path("base")}
    tasks = {"names": ["chose"], "folder": str(folder)}
    with pytest.raises(ValueError, match="knows no task 'chose' .did you mean choose"):
        strop.run(tiny.recipe(tmp_path, {**stage, "tasks": tasks}), display="quiet")
    with pytest.raises(strop.RecipeError, match="there are no rows to ask about"):
        strop.run(
            tiny.recipe(tmp_path, {**stage, "tasks": {"names": ["choose"]}, "rewards": "number"}), display="quiet"
        )
