"""Shape: patterns, tags in order, length penalties, JSON of a schema."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from strop.rewards import (
    JsonSchema,
    Length,
    Overlong,
    Regex,
    Tags,
    verify_json,
    verify_length,
    verify_regex,
    verify_tags,
)
from strop.types import Completion, Group


def scores(reward: object, *completions: Completion) -> list[float | None]:
    return [v.score for v in reward([Group("p", completions)])[0]]  # type: ignore[operator]


def test_regex_finds_or_spans_the_text() -> None:
    assert verify_regex("say hello twice", r"hel+o").score == 1.0
    assert verify_regex("say hello twice", r"hel+o", mode="full").score == 0.0
    assert verify_regex("hello", r"hel+o", mode="full").score == 1.0
    assert verify_regex("hello\n", r"hel+o", mode="full").score == 0.0
    assert verify_regex("", r"x").score == 0.0


def test_a_long_text_is_unscorable_for_a_pattern() -> None:
    assert scores(Regex(pattern="a", max_chars=10), Completion("a" * 10), Completion("a" * 11)) == [1.0, None]


@pytest.mark.parametrize("pattern", ["(a+)+", r"(\w*)*x", "(?:[a-z]+)+$", r"(\d+)*"])
def test_a_repeated_repeat_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="repeats a repeat"):
        Regex(pattern=pattern)


@pytest.mark.parametrize("pattern", ["(ab)+", "(a++)+", r"(\w+ )+", r"\(a+\)+", "(<step>.*</step>)+", "(?>a+)+"])
def test_an_ordinary_repeat_is_taken(pattern: str) -> None:
    Regex(pattern=pattern)


def test_a_bad_pattern_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"regex\.pattern: 'a\[' .* position 1"):
        Regex(pattern="a[")


GOOD = "<think>because</think><answer>7</answer>"
TAGS = [
    (GOOD, {}, 1),
    ("\n<think>\nbecause\n</think>\n\n<answer>\n7\n</answer>\n", {}, 1),
    (GOOD + "bye", {}, 0),
    (GOOD + "bye", {"text_after": True}, 1),
    ("hi" + GOOD, {}, 0),
    ("hi" + GOOD, {"anchored": False}, 1),
    ("<think>a</think> so <answer>7</answer>", {}, 0),
    ("<think>a</think> so <answer>7</answer>", {"anchored": False}, 1),
    ("hi" + GOOD + "bye", {"anchored": False}, 0),
    (GOOD + GOOD, {"text_after": True}, 0),
    (GOOD + "<answer>8</answer>", {"text_after": True}, 0),
    (GOOD + "</answer>", {"text_after": True}, 0),
    ("<think>a<think>b</think></think><answer>7</answer>", {}, 0),
    ("<think>a<answer>7</answer></think>", {}, 0),
    ("<think>a</think><answer><think>b</think>7</answer>", {}, 0),
    ("<answer>7</answer><think>a</think>", {}, 0),
    ("<think>a</think>", {}, 0),
    ("<answer>7</answer>", {}, 0),
    ("<think>a</think><answer>7", {}, 0),
    ("<think></think><answer>7</answer>", {}, 0),
    ("<think>a</think><answer> \n</answer>", {}, 0),
    ("<Think>a</Think><answer>7</answer>", {}, 0),
    ("<think >a</think><answer>7</answer>", {}, 0),
    ("", {}, 0),
    ("because</think><answer>7</answer>", {"opened": True}, 1),
    (GOOD, {"opened": True}, 0),
    ("<a>1</a><b>2</b><c>3</c>", {"tags": ("a", "b", "c")}, 1),
    ("<a>1</a><c>3</c><b>2</b>", {"tags": ("a", "b", "c")}, 0),
    ("<a>1 <i>2</i></a>", {"tags": ("a",)}, 1),
    ("<think>" * 100_000, {}, 0),
    ("<" * 500_000, {}, 0),
]


@pytest.mark.parametrize(("text", "options", "score"), TAGS)
def test_tags(text: str, options: dict[str, object], score: float) -> None:
    start = time.process_time()
    verdict = verify_tags(text, **options)  # type: ignore[arg-type]
    assert verdict.score == score, verdict
    assert Tags(**options)([Group("p", (Completion(text),))])[0][0] == verdict  # type: ignore[arg-type]
    assert len(verdict.reason) < 300
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("tags", [(), ("a", "a"), ("<a>",), ("",)])
def test_bad_tags_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"tags\.tags"):
        Tags(tags=tags)


def test_length_penalty_is_linear_between_target_and_limit() -> None:
    sizes = [0, 100, 125, 150, 200, 1000]
    assert [verify_length(n, 100, 200).score for n in sizes] == [0, 0, -0.25, -0.5, -1, -1]
    assert verify_length(None, 100, 200).score is None


def test_length_counts_its_unit() -> None:
    completion = Completion("one two three", token_ids=(1, 2, 3, 4))
    assert scores(Length(target=2, limit=4, unit="words"), completion) == [-0.5]
    assert scores(Length(target=3, limit=13, unit="characters"), completion) == [-1.0]
    assert scores(Length(target=4, limit=5), completion, Completion("given")) == [0.0, None]
    with pytest.raises(ValueError, match="below limit"):
        Length(target=5, limit=5)


def test_overlong_is_dapo_equation_13() -> None:
    max_length, cache = 20, 4
    for size in range(1, 30):
        y = 0.0 if size <= 16 else ((max_length - cache) - size) / cache if size <= max_length else -1.0
        reward = Overlong(max_length=max_length, cache=cache)
        assert scores(reward, Completion("", token_ids=tuple(range(size)))) == [y]
    assert scores(Overlong(max_length=2, cache=1), Completion("given")) == [None]
    with pytest.raises(ValueError, match="cache"):
        Overlong(max_length=4, cache=5)


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
OK = '{"name": "Ada", "age": 36}'
JSON = [
    (OK, 1),
    (f"  {OK}\n", 1),
    (f"<think>{{</think>{OK}", 1),
    (f"Here it is:\n```json\n{OK}\n```\nDone.", 1),
    (f"```\n{OK}\n```", 1),
    (f"```json\n[]\n```\n```json\n{OK}\n```", 1),
    (f"```json\n{OK}\n```\n```json\n[]\n```", 0),
    (f"Here it is: {OK}", 0),
    (f"```json\n{OK}", 0),
    (f"<think>{OK}", 0),
    ('{"name": "Ada"}', 0),
    ('{"name": "Ada", "age": -1}', 0),
    ('{"name": "Ada", "age": "36"}', 0),
    ('{"name": "Ada", "age": 36, "x": 1}', 0),
    ('{"name": "Ada", "age": NaN}', 0),
    ('{"name": "Ada", "age": -1, "age": 36}', 0),
    (f"{OK} {OK}", 0),
    ("", 0),
    ("null", 0),
    ("[" * 15_000, 0),
    ("[" * 900 + "]" * 900, 0),
    ('{"name": "Ada", "age": ' + "9" * 10_000 + "}", 0),
    ("[" + "1," * 9_000 + "1]", None),
    (" " * 30_000 + OK + "x" * 30_000, None),
]


@pytest.mark.parametrize(("text", "score"), JSON)
def test_json(text: str, score: float | None) -> None:
    pytest.importorskip("jsonschema")
    start = time.perf_counter()
    verdict = verify_json(text, PERSON)
    assert verdict.score == score, verdict
    assert verdict.reason
    assert time.perf_counter() - start < 2.0


def test_many_mixed_items_are_compared_in_bounded_time() -> None:
    pytest.importorskip("jsonschema")
    items = [value for i in range(600) for value in (i, str(i))]
    start = time.perf_counter()
    assert verify_json(json.dumps(items), {"type": "array", "uniqueItems": True}).score == 1.0
    assert time.perf_counter() - start < 5.0


def test_schema_from_a_file_and_references_within_it(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}))
    assert scores(JsonSchema(path=str(path)), Completion("[1, 2]"), Completion('[1, "2"]')) == [1.0, 0.0]


@pytest.mark.parametrize("ref", ["https://example.org/s.json", "file:///etc/passwd", "other.json#/x"])
def test_a_reference_to_another_document_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="leaves the schema"):
        JsonSchema(schema={"items": {"$ref": ref}})


def test_a_reference_cannot_fetch_by_way_of_an_id() -> None:
    pytest.importorskip("jsonschema")
    schema = {"$id": "http://127.0.0.1:9/s.json", "properties": {"a": {"$id": "http://127.0.0.1:9/t.json"}}}
    assert verify_json('{"a": 1}', schema).score == 1.0


def test_bad_schemas_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(ValueError, match="either schema"):
        JsonSchema()
    with pytest.raises(ValueError, match=r"at \$\.type"):
        verify_json("1", {"type": "whole"})
    with pytest.raises(ValueError, match="cannot be read"):
        JsonSchema(path=str(tmp_path / "none.json"))([Group("p")])
