"""What `strop inspect` says: counts, lengths by hand, and tokens with their mask."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from tests.data import conftest as t

from strop.data.chat import Chat
from strop.data.formats import load_dataset
from strop.data.inspect import as_text, inspect, percentiles


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": [{"role": "user", "content": "hello"}], "chosen": "yes", "rejected": w}
        for w in ("no", "yes", "two two")
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_dataset(str(path))


def test_counts_lengths_and_masks_in_tokens(pairs):
    chat = Chat(t.bpe(t.CHATML))
    report = inspect(pairs, chat, max_length=1000)
    assert json.loads(json.dumps(report)) == report
    assert (report["rows"], report["kept"], report["dropped"]) == (3, 2, {"chosen == rejected": 1})
    assert report["unit"] == "tokens" and report["truncated"] == 0.0
    prompt = len(chat.encode_prompt(pairs.groups[0].prompt))
    assert report["lengths"]["prompt"]["p50"] == prompt
    sides = report["samples"][0]["completions"]
    assert [side["name"] for side in sides] == ["chosen", "rejected"]
    assert [(tok["text"], tok["trained"]) for tok in sides[0]["tokens"]] == [("yes", True), ("<|im_end|>", True)]
    assert not any(tok["trained"] for tok in report["samples"][0]["prompt"])


def test_share_truncated_counts_completions_that_are_cut(pairs):
    chat = Chat(t.bpe(t.CHATML))
    prompt = len(chat.encode_prompt(pairs.groups[0].prompt))
    report = inspect(pairs, chat, max_length=prompt + 2)
    assert report["truncated"] == 1 / 4  # only "two two" has more than a word and its end
    assert inspect(pairs, chat, max_length=prompt)["unusable"] == {"prompt fills max_length": 2}


def test_an_answer_that_a_sampler_did_not_finish_is_not_cut_by_max_length(pairs):
    first = pairs.groups[0]
    unfinished = tuple(dataclasses.replace(c, finish="length") for c in first.completions)
    sampled = dataclasses.replace(pairs, groups=(dataclasses.replace(first, completions=unfinished),))
    report = inspect(sampled, Chat(t.bpe(t.CHATML)), max_length=1000)
    assert report["truncated"] == 0.0
    assert not any(side["truncated"] for side in report["samples"][0]["completions"])


def test_text_marks_what_is_trained_and_sets_the_sides_of_a_pair_beside_each_other(pairs):
    text = as_text(inspect(pairs, Chat(t.bpe(t.CHATML)), max_length=1000), width=80)
    assert "⟦yes·<|im_end|>⟧" in text and "1 x " in text and "chosen == rejected" in text
    (line,) = [line for line in text.splitlines() if "⟦yes·<|im_end|>⟧" in line and "⟦no·<|im_end|>⟧" in line]
    assert line.index("⟦yes") < line.index("| ⟦no")
    _, _, sample = text.partition("\n--- ")
    body = [line for line in sample.splitlines()[1:] if not line.startswith("--- ")]  # headings name the file
    assert max(map(len, body)) <= 81


def test_without_a_tokenizer_lengths_are_in_characters(pairs):
    report = inspect(pairs)
    assert report["unit"] == "characters" and report["lengths"]["completion"]["max"] == 7.0
    assert "assistant: yes" in as_text(report)


def test_a_terminal_is_not_steered_by_data(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "a\x1b[2Jb", "completion": "c\x07\x1b]0;x"}))
    data = load_dataset(str(path))
    for chat in (None, Chat(t.bpe())):
        assert not set(as_text(inspect(data, chat))) & {"\x1b", "\x07"}


def test_percentiles_by_hand():
    assert percentiles(range(1, 101)) == {"min": 1, "p50": 50, "p90": 90, "p99": 99, "max": 100, "mean": 50.5}
    assert percentiles([7]) == {"min": 7, "p50": 7, "p90": 7, "p99": 7, "max": 7, "mean": 7}
    assert percentiles([]) == {}


def test_reading_and_inspecting_import_no_torch():
    code = "import sys, strop.data.formats, strop.data.inspect; print({'torch', 'transformers'} & set(sys.modules))"
    env = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "set()\n"
