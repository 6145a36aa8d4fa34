"""`strop verify`: every row comes out in its place, judged or with why it cannot be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from strop.cli import app
from strop.recipes import verifying
from strop.recipes.sources import RecipeError
from strop.types import Group, Verdict

SHARED = Path(__file__).parents[2] / "../shared/cases"
runner = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), "utf-8")
    return name


def run(*words: str) -> Result:
    return runner.invoke(app, ["verify", *words])


def scores(*words: str) -> list[Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line)["score"] for line in result.stdout.splitlines()]


def test_one_object_a_row_in_order_and_nothing_else() -> None:
    file = write("x.jsonl", *({"gold": "42", "completion": rf"\boxed{{{n}}}"} for n in (41, 42, 43)))
    result = run("math", file, "--json")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"score": 0.0, "extracted": "41", "reason": "not equal"},
        {"score": 1.0, "extracted": "42", "reason": "the same text"},
        {"score": 0.0, "extracted": "43", "reason": "not equal"},
    ]
    assert result.stderr == "3 verified: mean 0.3333, 0 unscorable\n"


def test_shared_pairs_and_exploits() -> None:
    pairs, exploits = SHARED / "math_pairs.jsonl", SHARED / "exploits.jsonl"
    if not pairs.is_file():
        pytest.skip("the shared cases are not there")
    wanted = [float(json.loads(line)["correct"]) for line in pairs.read_text().splitlines()]
    assert scores("math", str(pairs)) == wanted
    rows = [json.loads(line) for line in exploits.read_text().splitlines()]
    found = scores("math", str(exploits))
    assert len(found) == len(rows)
    assert {s for s, row in zip(found, rows, strict=True) if row["category"].startswith("math")} == {0.0}


@pytest.mark.parametrize(
    "row",
    [
        {"gold": "72", "completion": "72"},
        {"answer": "72", "completion": "72"},
        {"answer": 72, "prompt": "q", "completion": "72"},
        {"answer": "72", "prompt": [{"role": "user", "content": "q"}], "completion": "72"},
        {"answer": "72", "completion": [{"role": "assistant", "content": "72"}]},
        {"answer": "72", "response": "72"},
        {"code": "72", "tests": [{"gold": "72"}]},
        {"prompt": "q", "completions": [{"content": "72"}], "row": {"answer": "72"}},
        {"prompt": "q", "completions": ["72"], "answer": "72"},
    ],
)
def test_shapes_of_rows(row: dict[str, Any]) -> None:
    assert scores("number", write("x.jsonl", row)) == [1.0]


def test_a_group_gives_one_line_a_completion() -> None:
    group = {"prompt": "q", "completions": [{"content": "72"}, {"content": "71"}], "row": {"answer": "72"}}
    assert scores("number", write("x.jsonl", group, {"gold": "1", "completion": "1"})) == [1.0, 0.0, 1.0]


def test_malformed_rows_are_null_in_their_place_with_why() -> None:
    good = {"gold": "1", "completion": "1"}
    bad = ["not json", "[1]", {"gold": "1"}, {"gold": "1", "completion": 5}, {"gold": "1", "completions": []}]
    bad += [{"gold": "1", "completion": "1", "prompt": 7}, {"completion": "1"}]
    result = run("number", write("x.jsonl", good, *bad, good), "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [f["score"] for f in found] == [1.0, *[None] * len(bad), 1.0]
    assert [f["reason"][:50] for f in found[1:-1]] == [
        "the row cannot be read: invalid JSON: Expecting va",
        "the row cannot be read: not an object: a row is an",
        "the row cannot be read: no completion in it; known",
        "the row cannot be read: completion: expected a tex",
        "the row cannot be read: completions must be a list",
        "the row cannot be read: expected a text or a list ",
        "the gold answer is no number: None",
    ]
    assert result.stderr == "9 verified: mean 1, 7 unscorable\n"


def test_a_file_in_which_no_row_has_a_gold_is_read_all_the_same() -> None:
    assert scores("math", write("x.jsonl", {"completion": "1"})) == [None]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl.gz"])
def test_other_files(name: str) -> None:
    rows = [{"gold": "1", "completion": "1"}, {"gold": "1", "completion": "2"}]
    if name.endswith(".gz"):
        Path(name).write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    else:
        Path(name).write_text(json.dumps(rows))
    assert scores("number", name) == [1.0, 0.0]


def test_settings_of_the_reward() -> None:
    file = write("x.jsonl", {"mine": "72", "answer": "1", "completion": "72.1"})
    assert scores("number", file, "column=mine", "tolerance=0.01") == [1.0]
    assert scores("regex", file, "pattern=^7", "mode=search") == [1.0]


def test_lines_for_people() -> None:
    result = run("number", write("x.jsonl", {"gold": "72", "completion": "72"}, {"completion": "a\nb"}))
    assert result.output.splitlines() == [
        "    1       1  72  equal",
        "    2    null  -  the gold answer is no number: None",
        "2 verified: mean 1, 1 unscorable",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("numbr", "x.jsonl"), "KIND: no such name: numbr; did you mean number?"),
        (("number", "y.jsonl"), "y.jsonl: no such file or folder; did you mean"),
        (("number", "x.jsonl", "tol=1"), "tol: unknown; allowed: "),
        (("number", "x.jsonl", "tolerance=x"), "tolerance: expected a number"),
        (("number", "x.jsonl", "tolerance=2"), "no relative deviation"),
        (("number", "x.jsonl", "tolerance"), "a setting is key=value"),
        (("regex", "x.jsonl"), "pattern"),
    ],
)
def test_mistakes_leave_with_2_and_print_no_result(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("x.jsonl", {"gold": "72", "completion": "72"})
    monkeypatch.setattr("sys.argv", ["strop", "verify", *words, "--json"])
    from strop.cli import main

    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == 2 and said in told.err and told.out == ""


def test_a_row_that_breaks_the_reward_breaks_no_other() -> None:
    class Broken:
        name, label, weight = "broken", None, 1.0

        def __call__(self, groups: list[Group]) -> list[list[Verdict]]:
            if any(c.text == "bad" for g in groups for c in g.completions):
                raise ZeroDivisionError("it broke")
            return [[Verdict(1.0)] for _ in groups]

    file = write("x.jsonl", *({"completion": text} for text in ("a", "bad", "b")))
    found = [judged.verdict for judged in verifying.verify_file(file, Broken())]
    assert [v.score for v in found] == [1.0, None, 1.0]
    assert found[1].reason == "the reward failed: ZeroDivisionError: it broke"


def test_many_rows_are_judged_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "CHUNK", 2)
    file = write("x.jsonl", *({"gold": str(n), "completion": "3"} for n in range(5)))
    assert scores("number", file) == [0.0, 0.0, 0.0, 1.0, 0.0]


def test_facts_stand_beside_the_score() -> None:
    judged = verifying.Judged("x:1", Verdict(1.0, "passed", None, facts={"tier": "A", "seconds": float("nan")}))
    assert json.loads(verifying.as_json(judged)) == {
        "score": 1.0,
        "extracted": None,
        "reason": "passed",
        "tier": "A",
        "seconds": None,
    }
    assert verifying.as_line(1, judged) == "    1       1  -  passed  tier=A seconds=nan"


def test_reward_of_refuses_what_is_no_reward() -> None:
    with pytest.raises(RecipeError, match="allowed: "):
        verifying.reward_of("dpo", [])


def test_a_completion_keeps_its_tokens() -> None:
    row = {"prompt": "q", "completions": [{"content": "hi", "token_ids": [1, 2, 3]}]}
    assert scores("length", write("x.jsonl", row), "target=1", "limit=3") == [-1.0]
