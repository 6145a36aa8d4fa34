"""What rows tell of their labels: contradictions, ties, length, balance, references."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.data.formats import load_dataset
from strop.data.quality import Comparisons, Quality, quality


def look(folder: Path, *rows: dict[str, Any]) -> Quality:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return quality(load_dataset(str(path)))


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_pairs_judged_twice_agree_or_contradict(tmp_path: Path) -> None:
    seen = look(
        tmp_path,
        pair("q", "aa", "b"),
        pair("q", "b", "AA "),  # the same two, the other way round
        pair("q", "aa", "b"),
        pair("p", "aa", "b"),  # another prompt
        pair("q", "same", "same"),
    )
    found = seen.comparisons
    assert found is not None
    assert (found.num, found.identical, found.twice, found.contradicting) == (4, 1, 3, 2)
    assert (seen.rows, seen.prompts, seen.answers, seen.repeated) == (4, 2, 8, 4)


def test_the_flip_rate_is_recovered_from_contradictions() -> None:
    random = np.random.default_rng(0)
    for rate in (0.0, 0.1, 0.3):
        flipped = random.random((20_000, 2)) < rate
        contradicting = int((flipped[:, 0] != flipped[:, 1]).sum())
        found = Comparisons(40_000, 0, 0, 20_000, contradicting, 0, 0)
        assert found.flip_rate == pytest.approx(rate, abs=0.02)
    assert Comparisons(9, 0, 0, 0, 0, 0, 0).flip_rate is None
    assert Comparisons(9, 0, 0, 10, 9, 0, 0).flip_rate == 0.5  # worse than chance is chance


def test_length_is_compared_where_it_differs(tmp_path: Path) -> None:
    found = look(tmp_path, pair("q", "long", "s"), pair("q", "s", "longer"), pair("q", "abc", "xyz")).comparisons
    assert found is not None and (found.longer, found.unlike, found.longer_share) == (1, 2, 0.5)
    none = look(tmp_path, pair("q", "abc", "xyz")).comparisons
    assert none is not None and none.longer_share is None


def test_a_ranking_is_all_its_comparisons_without_equal_scores(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completions": ["a", "bb", "ccc"], "scores": [1, 3, 3]},
        {"prompt": "q", "completions": ["a", "bb"], "scores": [2, 2]},
    ]
    found = look(tmp_path, *rows).comparisons
    assert found is not None and (found.num, found.tied, found.longer) == (2, 1, 2)


def test_labels_are_counted_and_contradictions_found(tmp_path: Path) -> None:
    def row(prompt: str, completion: str, label: bool) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label}

    rows = [row("q", "a", True), row("q", "A", False), row("q", "b", True), row("p", "a", True)]
    found = look(tmp_path, *rows).labels
    assert found is not None
    assert (found.desirable, found.undesirable, found.contradicting, found.prompts_with_both) == (3, 1, 1, 1)


def test_steps_are_counted_by_label(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completions": ["a", "b", "c"], "labels": [True, False, None]}]
    rows.append({"prompt": "q", "completions": ["a"], "labels": [True]})
    found = look(tmp_path, *rows).steps
    assert found is not None and (found.solutions, found.right, found.wrong) == (2, 2, 1)


def test_reference_answers_are_found_by_their_usual_names(tmp_path: Path) -> None:
    seen = look(tmp_path, {"prompt": "q", "answer": "12"}, {"prompt": "p", "answer": "so #### 1,234"})
    assert (seen.references, seen.numeric) == (("answer",), 1.0)
    seen = look(tmp_path, {"prompt": "q", "target": "yes"}, {"prompt": "p", "target": 3, "other": 1})
    assert (seen.references, seen.numeric) == (("target",), 0.5)
    assert look(tmp_path, {"prompt": "q", "note": 1}).references == ()
    assert not math.isnan(look(tmp_path, {"prompt": "q", "answer": "nan"}).numeric)


def test_parts_that_rows_have_nothing_of_are_none(tmp_path: Path) -> None:
    seen = look(tmp_path, {"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "a"})
    assert (seen.comparisons, seen.labels, seen.steps, seen.scored) == (None, None, None, False)
    assert (seen.prompts, seen.repeated) == (1, 1)
