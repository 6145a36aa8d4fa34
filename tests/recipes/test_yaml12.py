from __future__ import annotations

import math

import pytest

from strop.recipes.yaml12 import MAX_ALIASES, YAMLError, dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-7", -7),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("@sft", "@sft"),
        ("-.inf", -math.inf),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_a_name_of_a_stage_may_stand_in_lists_and_mappings() -> None:
    assert parse("a: [@x, {path: @y}]").value == {"a": ["@x", {"path": "@y"}]}


def test_every_value_knows_its_line() -> None:
    lines = parse("a: 1\nb:\n  c: [1,\n    2]\n").lines
    assert lines[("a",)] == 1
    assert lines[("b", "c")] == 3
    assert lines[("b", "c", 1)] == 4


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "stands twice, first in line 1"),
        ("x: 1\na: !!python/object:os.system ls\n", 2, "tag"),
        ("a: !!int x\n", 1, "int"),
        ("a: &x [*x]\n", 1, "alias"),
        ("a: *nothing\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("1: 2\n", 1, "not a text"),
        ("a: [1\n", 2, "expected"),
        ("a: " + "[" * 60 + "]" * 60, 1, "nested deeper"),
        ("a: &a 1\nb: [" + "*a," * (MAX_ALIASES + 1) + "]\n", 2, "aliases"),
        ("#" + "x" * 1_000_001, 1, "larger"),
    ],
)
def test_what_is_refused_is_said_with_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(YAMLError, match=word) as caught:
        parse(text)
    assert caught.value.line == line


def test_a_billion_laughs_are_refused_before_they_are_written_out() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 9):
        text += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    with pytest.raises(YAMLError, match="once aliases are written out"):
        parse(text)


def test_a_dump_is_read_back_equal() -> None:
    texts = [
        "1e-5",
        "no",
        "on",
        "true",
        "0o17",
        "017",
        "",
        "null",
        "@x",
        " a ",
        "a: b",
        "# c",
        "two\nlines\n",
        "é",
        "~",
    ]
    value = {"texts": texts, "numbers": [5e-7, 1e22, 3, -0.5], "rest": [None, True, {}, []]}
    assert parse(dump(value)).value == value


def test_other_readers_of_a_dump_see_texts_too() -> None:
    assert dump({"a": "no"}) == "a: 'no'\n"
