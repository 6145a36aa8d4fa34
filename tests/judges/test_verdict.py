"""What parses as a verdict, and what does not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from strop.judges.protocol import Reply
from strop.judges.verdict import masses, nonce_of, option_weights, read_verdict, surface

CODE = "0123456789abcdef"
GOOD = f'{{"nonce": "{CODE}", "better": "A"}}'


def read(text: str) -> Any:
    return read_verdict(Reply(text=text), CODE, "better", lambda v: v in ("A", "B", "tie"))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n\n",
        f"A is right.\n{GOOD}",
        f"```json\n{GOOD}\n```",
        f"<think>{{B?}}</think>{GOOD}",
        '{\n  "better": "A",\n  "nonce": "' + CODE + '"\n}',
        f"The form is {{nonce, better}}. {GOOD}",
        GOOD + GOOD,
    ],
)
def test_a_verdict_ends_the_reply(text: str) -> None:
    assert read(text) == ("A", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "[[A]]",
        "Verdict: A",
        '{"better": "A"}',
        f'{{"nonce": "{CODE}"}}',
        f'{{"nonce": "{CODE[::-1]}", "better": "A"}}',
        f'{{"nonce": "{CODE.upper()}", "better": "A"}}',
        f'{{"nonce": "{CODE}", "better": "C"}}',
        f'{{"nonce": "{CODE}", "better": "a"}}',
        f'{{"nonce": "{CODE}", "better": ["A"]}}',
        f'{{"nonce": "{CODE}", "better": true}}',
        f'{{"nonce": "{CODE}", "better": X}}',
        f'{{"nonce": "{CODE}", "better": "A", "score": 10}}',
        f'{{"nonce": "{CODE}", "better": "A", "better": "B"}}',
        f'{{"nonce": "{CODE}", "nonce": "{CODE}", "better": "A"}}',
        f'{{"Nonce": "{CODE}", "better": "A"}}',
        f"{GOOD} or maybe not",
        f"{GOOD}\nresponse B: bad",
        GOOD[:-1],
        f"{{{GOOD}}}",
        f'{GOOD}\n{{"nonce": "{CODE}", "better": "B"}}',
        f'{{"nonce": "{CODE}", "better": NaN}}',
        "{" * 50_000 + "}" * 50_000,
    ],
)
def test_nothing_else_does(text: str) -> None:
    value, why = read(text)
    assert value is None and why


def test_the_code_depends_on_all_that_is_asked() -> None:
    assert nonce_of("a", ("b", "c")) != nonce_of("a", ("b", "d")) and len(nonce_of()) == 16
    assert nonce_of("ab", "c") != nonce_of("a", "bc")


def test_surface_variants_are_summed_and_junk_weighs_nothing() -> None:
    logs = {"A": -1.0, " A": -2.0, '"A"': -3.0, "\u2581A": -4.0, "\u0120A": -5.0, "a": -0.1, "AB": -0.1, "B": math.nan}
    found = masses(logs, ("A", "B"))
    assert found is not None and found["B"] == 0
    assert found["A"] == pytest.approx(sum(math.exp(-n) for n in range(1, 6)))
    assert masses({"C": -1.0}, ("A", "B")) is None and masses({"A": 5.0}, ("A", "B")) is None
    assert surface(' "A"}') == "A" and surface("The") == "The"


def test_the_letter_is_found_where_the_verdict_names_it() -> None:
    """Not at the letter A of the thought before it."""
    tokens = ("A", " is fine. ", '{"better": "', "A", '"}')
    early, late = {"A": -0.1, "B": -9.0}, {"A": -1.0, "B": -1.0}
    reply = Reply(text="".join(tokens), tokens=tokens, logprobs=(early, {}, {}, late, {}))
    found = option_weights(reply, ("A", "B"), "A")
    assert found is not None and found["A"] == found["B"]
    assert option_weights(Reply(text="x", tokens=tokens, logprobs=(early,)), ("A", "B"), "A") is None
    assert option_weights(Reply(text=json.dumps({})), ("A", "B"), "A") is None
