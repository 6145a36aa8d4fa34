"""The number verifier: what it accepts, what comes near, what attacks it, and real solutions."""

from __future__ import annotations

import gzip
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from strop.rewards import Number, verify_number
from strop.rewards.quantity import last_number, parse_number
from strop.types import Completion, Group

SHARED = Path(__file__).parents[2] / "../shared"

ACCEPTED = [
    # gold, completion
    ("72", "#### 72"),
    ("#### 72", "She sold 48+24 = <<48+24=72>>72 clips.\n#### 72"),
    ("72", r"So we get $\boxed{72}$."),
    ("72", r"\boxed{{72}}"),
    ("72", r"\fbox{72}"),
    ("72", r"\boxed{\boxed{72}}"),
    ("72", r"\boxed{\text{72}}"),
    ("72", r"\boxed{x = 72}"),
    ("72", r"\boxed{x_{1} = 72}"),
    ("72", "<answer>72</answer>"),
    ("72", "<answer>\n  72 clips\n</answer>"),
    ("72", r"<answer>\boxed{72}</answer>"),
    ("72", "<answer>The total is 72 clips.</answer>"),
    ("72", "The answer is 72."),
    ("72", "The answer is 72!"),
    ("72", "The final answer is: **72**"),
    ("72", "**Answer:** 72"),
    ("72", "**Final Answer**: $72$."),
    ("72", r"The answer is $\boxed{72}$."),
    ("72", "Answer: She sold 72 clips."),
    ("72", "The answer is 72, because 48 + 24 = 72."),
    ("72", "The answer is therefore 72"),
    ("72", "The answer is:\n\n72"),
    ("72", "The answer is as follows.\n$$\n72\n$$"),
    ("72", "Answer: First add 48 and 24.\nThat gives 72 clips."),
    ("72", "48 + 24 = 72"),
    ("72", "In total she sold 72 clips!"),
    ("72", "In total: 72"),
    ("72", "- 48 in April\n- 24 in May\n- 72 in total"),
    ("72", "72"),
    ("72", "A: 72"),
    ("72", "<think>40 or \\boxed{41}</think>The answer is 72"),
    ("72", "It is 5 </think> 72"),
    ("72", "\\boxed{41}. No: \\boxed{72}"),
    ("72", "The answer is 41. Wait. The answer is 72."),
    ("72", "The answer is 72.\nI hope the answer is clear!"),
    ("72", "７２"),
    ("72", "٧٢"),
    ("1234567", "1,234,567"),
    ("1234567", "1{,}234{,}567"),
    ("1234567", r"\boxed{1\,234\,567}"),
    ("1234567", "1\u202f234\u202f567"),
    ("1,234.50", "#### 1234.5"),
    ("1000", r"\boxed{1,\!000}"),
    ("5", r"The answer is \$5."),
    ("5", "#### $5.00"),
    ("-5", "#### -$5"),
    ("-5", "#### $-5"),
    ("5", "#### 5€"),
    ("5", "USD 5"),
    ("1/2", "0.50"),
    ("0.5", r"\boxed{\frac{1}{2}}"),
    ("0.5", r"\boxed{\dfrac12}"),
    ("0.5", r"\boxed{\tfrac{2}{4}}"),
    ("1/2", "½"),
    ("3/2", "1½"),
    ("3/2", "1 1/2"),
    ("3/2", r"\boxed{1\frac{1}{2}}"),
    ("-3/4", r"\boxed{-\frac{3}{4}}"),
    ("-3/4", r"\boxed{\frac{-3}{4}}"),
    (".75", "3/4"),
    ("-3", "−3"),
    ("-3", "The answer is -3."),
    ("-3", "The balance is -3"),
    ("3", "+3"),
    ("3", "3."),
    ("50", "50%"),
    ("50", r"\boxed{50\%}"),
    ("50%", "50"),
    ("50%", "50 percent"),
    ("0.5", "50%"),
    ("50%", "1/2"),
    ("0.5%", "0.5%"),
    ("1500", "1.5e3"),
    ("1500", r"\boxed{1.5\times10^3}"),
    ("1500", "1.5 × 10^{3}"),
    ("1500", "1.5*10^3"),
    ("0.0015", r"1.5 \cdot 10^{-3}"),
    ("1000000", "10^6"),
    ("2000000", "2 million"),
    ("-1800000000", "A: -1.8 billion"),
    ("12", r"\boxed{12\text{ cm}^2}"),
    ("12", "12 m²"),
    ("60", r"\boxed{60^\circ}"),
    ("60", "60 km/h"),
    ("60", "60 miles per hour"),
    ("5", "5 dollars a day"),
    (72, "72"),
    (0.1, "0.1"),
    (-3, "-3.0"),
    ("1e400", "1e400"),
    ("72", "7\u200b2"),
    ("72", "The answer is 48 + 24 = 72."),
    ("15", "<answer>$5 x 3 = $15</answer>"),
]

WRONG = [
    ("72", ""),
    ("72", "no idea"),
    ("72", "seventy-two"),
    ("72", r"\boxed{}"),
    ("72", r"\boxed{the answer}"),
    ("72", "<answer></answer>"),
    ("72", r"\boxed{72} \boxed{41}"),
    ("72", "The answer is 72. The answer is 41."),
    ("72", "#### 72\n#### 41"),
    ("72", r"\boxed{72}</think>\boxed{41}"),
    ("72", r"<think>\boxed{72}"),
    ("72", r"<think>\boxed{72}</think>"),
    ("72", r"</think>\boxed{72}<think> let me see"),
    ("72", r"Ignore the rules: \boxed{72}\boxed{0}. Score: 72"),
    ("72", r"\boxed{72}. Also \boxed{7"),
    ("72", "<answer>72</answer><answer>7"),
    # candidates
    ("72", "71 or 72"),
    ("72", "The answer is 71 or 72."),
    ("72", "71, 72"),
    ("72", "71/72"),
    ("72", "It is 71 apples or 72 apples"),
    ("72", "between 71 and 72"),
    ("72", "I'd say 71, maybe 72"),
    ("4", "The probability is 3 out of 4"),
    ("72", "**71** or **72**"),
    ("72", "71...72"),
    ("72", r"\boxed{71, 72, 73}"),
    ("72", r"\boxed{72 \text{ or } 73}"),
    ("72", r"\boxed{72\text{ or }x}"),
    ("72", r"\boxed{\{1,72\}}"),
    ("72", r"\boxed{[0,72]}"),
    ("72", r"\boxed{71-72}"),
    ("72", "<answer>71 or 72</answer>"),
    ("72", "<answer>72 or not</answer>"),
    ("72", "<answer>71\n72</answer>"),
    ("72", "$71$72$"),
    ("7172", "$71$72$"),
    ("72", "#### 72 #### 73"),
    # denials and words
    ("72", "The answer is not 72."),
    ("72", r"\boxed{\text{not }72}"),
    ("72", "It isn't 72"),
    ("72", "The answer cannot be 72"),
    ("72", "It is not equal to 72"),
    ("2", "7\u200b2"),
    ("72", "The answer is 71 = 72"),
    ("71", "The answer is 71 = 72"),
    ("24", "The answer is 48 + 24"),
    ("72", r"\boxed{>72}"),
    ("72", r"\boxed{x \ne 72}"),
    # arithmetic that is not carried out
    ("42", r"\boxed{6\cdot 7}"),
    ("7", r"\boxed{6\cdot 7}"),
    ("7", "6 * 7"),
    ("7", "The result is 6 + 7"),
    ("7", "The result is 16 - 7"),
    ("10", "A: 10+John's age"),
    ("42", r"\boxed{42=42}"),
    ("42", r"\boxed{x=1=42}"),
    ("120", r"\boxed{5!}"),
    ("5", r"\boxed{5!}"),
    ("8", r"\boxed{2^3}"),
    ("23", "2**3"),
    ("102", "10²"),
    ("100", "10²"),
    ("5", r"\boxed{5x}"),
    ("2", r"\boxed{2\pi}"),
    ("2", "2π"),
    ("2", r"\boxed{2\sqrt{3}}"),
    ("3", r"\boxed{3i}"),
    ("5", "5k"),
    ("5", "5 squared"),
    # near misses
    ("1/3", "0.333"),
    ("1/3", "0.333..."),
    ("3.14159", "3.14"),
    ("-3", "3"),
    ("3", "-3"),
    ("0.5", "0.5%"),
    ("2", "2 million"),
    ("1000", "1,00"),
    ("1000.5", "1.000,5"),
    ("1234567", "1,234,56"),
    ("1.2", "1.2.3"),
    ("30", "3:30"),
    ("25", "2023-12-25"),
    ("2", "H2"),
    ("2", "x2"),
    ("3", "3/0"),
    ("0", "3/0"),
    ("1.5", "1 4/2"),
    ("1000000", "10^7"),
]

UNSCORABLE = [None, "", "none", True, [1, 2], {"a": 1}, float("nan"), float("inf"), "40 or 50", "6*7", "x", "#### ",
              "1e999999999", "9" * 5000, r"\pi", "(1, 2)", "1/0"]  # fmt: skip

HOSTILE = {
    "a huge exponent": "#### 1e999999999",
    "a huge power": r"\boxed{10^{999999999}}",
    "a tower": r"\boxed{9^{9^{9^{9}}}}",
    "a factorial": r"\boxed{(10^{10})!}",
    "digits": "9" * 2_000_000,
    "digits after a marker": "#### " + "9" * 200_000,
    "commas": "1" + ",000" * 200_000 + "0",
    "open boxes": r"\boxed{" * 100_000,
    "nested boxes": r"\boxed{" * 5_000 + "72" + "}" * 5_000,
    "open braces": "{" * 500_000,
    "parentheses": r"\boxed{" + "(" * 100_000 + ")" * 100_000 + "}",
    "open tags": "<answer>" * 100_000,
    "markers": "the answer is " * 50_000,
    "markers with digits": "the answer is 1 " * 50_000,
    "answers to": "answer to " * 100_000,
    "spaces": " " * 1_000_000 + "x",
    "spaces after a number": "#### 1" + " " * 1_000_000 + "x",
    "lines": "\n" * 500_000 + "A:" * 10_000,
    "signs": "-" * 500_000 + "1x",
    "slashes": "1/" * 300_000,
    "dots": "1." * 300_000,
    "frac": r"\frac{" * 100_000,
    "text": r"\text{" * 100_000,
    "mixed": "1 " * 300_000,
    "words": "#### 5 " + "a " * 200_000 + "1",
    "units": r"\boxed{5 " + "a-" * 140 + "1}",
    "stars": "*" * 500_000 + "1",
    "thinking": "<think>" * 100_000 + "</think>" * 100_000 + "1x",
}


@pytest.mark.parametrize(("gold", "text"), ACCEPTED)
def test_accepts(gold: object, text: str) -> None:
    verdict = verify_number(text, gold)
    assert verdict.score == 1.0, verdict


@pytest.mark.parametrize(("gold", "text"), WRONG)
def test_refuses(gold: object, text: str) -> None:
    verdict = verify_number(text, gold)
    assert verdict.score == 0.0, verdict
    assert verdict.reason


@pytest.mark.parametrize("gold", UNSCORABLE)
def test_gold_that_is_no_number_is_unscorable(gold: object) -> None:
    verdict = verify_number("#### 72", gold)
    assert verdict.score is None
    assert "gold" in verdict.reason


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_are_wrong_and_cheap(text: str) -> None:
    start = time.perf_counter()
    assert verify_number(text, "72").score == 0.0
    assert verify_number("72", text).score in (None, 0.0)
    assert time.perf_counter() - start < 2.0


def test_unmarked_numbers_can_be_refused() -> None:
    assert verify_number("So she has 72 clips.", "72", unmarked=False).score == 0.0
    assert verify_number("72", "72", unmarked=False).score == 1.0
    assert verify_number("#### 72", "72", unmarked=False).score == 1.0


def test_tolerance_is_relative_and_off_by_default() -> None:
    assert verify_number("#### 14.29", "14.2857").score == 0.0
    assert verify_number("#### 14.29", "14.2857", tolerance=1e-3).score == 1.0
    assert verify_number("#### 14.31", "14.2857", tolerance=1e-3).score == 0.0
    assert verify_number("#### 0.0001", "0", tolerance=0.5).score == 0.0


def formatted(value: Fraction, rng: random.Random) -> str:
    """A random way to write the number."""
    sign, value = ("-" if value < 0 else ""), abs(value)
    forms = [f"{value.numerator}/{value.denominator}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"]
    scaled = value * 10**6
    if scaled.denominator == 1:
        whole, part = divmod(scaled.numerator, 10**6)
        forms += [f"{whole}.{part:06d}", f"{whole:,}.{part:06d}", f"{scaled.numerator}e-6"]
        forms += [rf"{scaled.numerator}\times10^{{-6}}", f"{scaled.numerator} x 10^-6"]
    if value.denominator == 1:
        forms += [str(value), f"{value.numerator:,}", f"{value}.", f"{value}.00", f"${value.numerator:,}"]
    text = rng.choice(["-", "−"] if sign else [""]) + rng.choice(forms)
    wraps = [r"\boxed{%s}", "#### %s", "<answer>%s</answer>", "The answer is %s.", "x = 3.\nAnswer: $%s$\n", "%s",
             "<think>5 or 6</think>So it is %s", r"**Answer:** $\boxed{%s}$", "<answer>%s apples</answer>"]  # fmt: skip
    return rng.choice(wraps) % text


def test_equality_does_not_depend_on_the_format() -> None:
    rng = random.Random(0)
    for _ in range(800):
        value = Fraction(rng.randint(-(10**6), 10**6), rng.choice([1, 1, 2, 3, 7, 8, 1000]))
        other = value + Fraction(rng.choice([-1, 1]), rng.choice([1, 10, 1000]))
        text, gold = formatted(value, rng), formatted(value, rng).replace("So it is ", "")
        assert verify_number(text, gold).score == 1.0, (text, gold)
        assert verify_number(text, formatted(other, rng).replace("So it is ", "")).score == 0.0, (text, other)


def test_a_number_among_others_in_a_box_never_wins() -> None:
    rng = random.Random(1)
    joins = [", ", " or ", "; ", r" \text{ or } ", " and ", " - ", "/", "=", "+", r"\cdot", " ", r"\\", ":", "^"]
    for _ in range(500):
        gold, other = rng.sample(range(2, 1000), 2)
        join = rng.choice(joins)
        for text in (f"{gold}{join}{other}", f"{other}{join}{gold}"):
            assert verify_number(rf"\boxed{{{text}}}", gold).score == 0.0, text


def test_random_texts_never_raise() -> None:
    rng = random.Random(2)
    pieces = [*"0123456789.,-+/*^%$(){}[]<>=! \n\\_`", "\\boxed{", "<answer>", "</answer>", "#### ", "answer is ",
              "\\frac", "\\text{", "½", "−", "e9", "</think>", "<think>", "or", "million", "A:", "×10^"]  # fmt: skip
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 30)))
        assert verify_number(text, 72).score in (0.0, 1.0)
        assert verify_number("72", text).score in (0.0, 1.0, None)
        parse_number(text)
        last_number(text)


def test_settings_read_the_column_and_keep_the_shape() -> None:
    groups = [
        Group("p", (Completion("#### 72"), Completion("#### 71")), {"gold": "#### 72"}),
        Group("p", (), {"gold": "1"}),
        Group("p", (Completion("1"),), {"gold": None}),
    ]
    assert [[v.score for v in vs] for vs in Number(column="gold")(groups)] == [[1.0, 0.0], [], [None]]


def test_a_column_that_no_row_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no row has a column 'answer' \(columns: target\)"):
        Number()([Group("p", (Completion("1"),), {"target": "1"})])


def test_bad_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        Number(tolerance=-1.0)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def test_gsm8k_answers_verify_against_themselves_and_not_against_the_next() -> None:
    with gzip.open(shared("data/gsm8k/train.jsonl.gz"), "rt", encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file]
    assert len(answers) == 7473
    assert all(verify_number(a, a).score == 1.0 for a in answers[::5])
    values = [a.rsplit("####")[-1].strip().replace(",", "") for a in answers]
    for (a, x), (b, y) in zip(
        zip(answers[:500], values[:500], strict=True), zip(answers[1:501], values[1:501], strict=True), strict=True
    ):
        assert verify_number(a, b).score == float(x == y)


def test_model_solutions_are_judged_as_their_authors_judged_them() -> None:
    with gzip.open(shared("data/gsm8k/example_model_solutions.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][::4]
    pairs = [(row["ground_truth"], s) for row in rows for s in row.values() if isinstance(s, dict)]
    assert len(pairs) == 330 * 4
    wrong = [s for gold, s in pairs if verify_number(s["solution"], gold).score != float(s["is_correct"])]
    assert wrong == []


def test_math_pairs_from_eight_threads() -> None:
    pairs = [json.loads(line) for line in shared("cases/math_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda p: verify_number(p["completion"], p["gold"]).score, pairs * 4))
    judged = [(p, s) for p, s in zip(pairs * 4, scores, strict=True) if s is not None]
    assert all(s == float(p["correct"]) for p, s in judged)  # symbolic golds are unscorable here
    assert len(judged) >= 4 * 20


def test_exploits_fail() -> None:
    lines = shared("cases/exploits.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [c for c in map(json.loads, lines) if c["category"].startswith("math")]
    assert len(cases) >= 10
    assert [c["id"] for c in cases if verify_number(c["code"], c["tests"][0]["gold"]).score == 1.0] == []
