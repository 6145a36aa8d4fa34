"""The math verifier: pairs of many kinds, near misses, hostile inputs, and workers that fail."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from strop.rewards import MathAnswer, load_rewards, verify_math
from strop.rewards.math import answer as answers
from strop.rewards.math.pool import Fault, Pool, pool
from strop.types import Completion, Group, Verdict

SHARED = Path(__file__).parents[2] / "../shared/cases"
OURS = Path(__file__).with_name("math_cases.jsonl")
KILL_LIMIT_S = 10.0


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def judged(pairs: list[dict[str, Any]]) -> list[tuple[Verdict, float]]:
    """Each pair's verdict and seconds, from eight threads at once, with the workers warm."""
    verify_math(r"\boxed{2\sqrt2}", r"\sqrt{8}")

    def one(pair: dict[str, Any]) -> tuple[Verdict, float]:
        start = time.perf_counter()
        return verify_math(pair["completion"], pair["gold"]), time.perf_counter() - start

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(one, pairs))


def wrong(pairs: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found = judged(pairs)
    assert max(seconds for _, seconds in found) < KILL_LIMIT_S
    return [
        (p["gold"], p["completion"][:120], p["correct"], v.score, v.reason)
        for p, (v, _) in zip(pairs, found, strict=True)
        if v.score != float(p["correct"])
    ]


def test_shared_pairs_from_eight_threads() -> None:
    assert wrong(rows(SHARED / "math_pairs.jsonl")) == []


def test_shared_exploits_score_nothing() -> None:
    found = [r for r in rows(SHARED / "exploits.jsonl") if r["category"].startswith("math")]
    pairs = [{"gold": r["tests"][0]["gold"], "completion": r["code"], "correct": False} for r in found]
    assert len(pairs) >= 15 and wrong(pairs) == []


def test_own_pairs_from_eight_threads() -> None:
    pairs = rows(OURS)
    assert len(pairs) >= 700 and min(Counter(p["correct"] for p in pairs).values()) >= 300
    assert wrong(pairs) == []


def test_golds_of_every_right_pair_are_right_themselves() -> None:
    pairs = [{**p, "completion": rf"\boxed{{{p['gold'].strip('$')}}}"} for p in rows(OURS) if p["correct"]]
    usable = [p for p in pairs if not any(mark in p["gold"] for mark in ("boxed", "####", "approx"))]
    assert wrong(usable) == []


def test_the_table_of_the_page_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs/math-verifier.md").read_text("utf-8")
    lines = page[page.index("| gold | accepted") :].split("\n\n")[0].splitlines()[2:]
    pairs = []
    for line in lines:
        golds, accepted, refused = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | "))
        for gold in golds:
            pairs += [{"gold": gold, "completion": rf"\boxed{{{a}}}", "correct": True} for a in accepted]
            pairs += [{"gold": gold, "completion": rf"\boxed{{{r}}}", "correct": False} for r in refused]
    assert len(pairs) > 80 and wrong(pairs) == []


# Where the answer stands.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("42", "no \\boxed{} after the thinking"),
        (r"<think>\boxed{42}", "no answer after the thinking"),
        (r"\boxed{42} and \boxed{42}", "2 boxes; an answer has exactly one"),
        (r"\boxed{42", "the box is not closed"),
        (r"\boxed{}", "the box is empty"),
        (r"\boxed{ \boxed{42} or so}", "a box stands among other things in a box"),
        (r"\boxed{\int_0^{42} dx}", "\\int is still to be worked out"),
        (r"\boxed{" + "7" * 500 + "}", "a number has 500 digits"),
        (r"\boxed{" + "x+" * 600 + "x}", "the answer has 1201 characters, more than 1000"),
        (r"\boxed{" + "(" * 40 + "42" + ")" * 40 + "}", "brackets are nested 40 deep"),
        (r"\boxed{9^{9^{9^9}}}", "a number in it has more than 5000 digits"),
    ],
)
def test_what_is_refused_says_why(text: str, reason: str) -> None:
    verdict = verify_math(text, "42")
    assert (verdict.score, verdict.reason) == (0.0, reason)


def test_the_extracted_answer_is_the_boxes_content() -> None:
    assert verify_math(r"So $\boxed{ \frac{1}{2} }$.", "0.5").extracted == r"\frac{1}{2}"


# The gold.


@pytest.mark.parametrize("gold", [None, "", " $$ ", True, {}, [], ["42", None], float("nan")])
def test_without_a_gold_it_is_unscorable(gold: Any) -> None:
    verdict = verify_math(r"\boxed{42}", gold)
    assert verdict.score is None and verdict.reason.startswith("no gold answer")


@pytest.mark.parametrize("gold", [42, 42.0, "42", "$42$", r"\boxed{42}", "So 6 * 7\n#### 42", ["41", "42"]])
def test_golds_may_be_numbers_texts_or_several(gold: Any) -> None:
    assert verify_math(r"\boxed{42}", gold).score == 1.0
    assert verify_math(r"\boxed{43}", gold).score == 0.0


def test_a_gold_that_nobody_can_read_is_unscorable_unless_the_texts_are_the_same() -> None:
    assert verify_math(r"\boxed{3}", r"\foo{3").score is None
    assert verify_math(r"\boxed{\foo{3}}", r"\foo{3}").score == 1.0


def test_a_gold_that_cannot_be_worked_out_is_unscorable() -> None:
    verdict = verify_math(r"\boxed{2}", r"\sum_{n=1}^{10^{12}}\frac{1}{n^2+1}", timeout_s=1)
    assert verdict.score is None and "cannot be worked out either" in verdict.reason


# Hostile texts never raise, and never take the parent's time.

WORDS = r"""\frac \sqrt \boxed{ \text{ \left( \right) \cup \in \pm \le \pi \sin \log_ \begin{pmatrix} \end{pmatrix}
    \{ \} \\ \% \infty \circ \mathrm{ \overline{ \binom \lfloor \ldots \operatorname{ or and 1,000 \$ 0.5
    √ π ² ½ ∞ ٣ 💥 ﬁ"""
PIECES = [*"0123456789xyi+-*/^_(){}[]|!%&$#'\",.;:<>=~ \\\n\t\x00\u200b\ud7ff", *WORDS.split(), "<think>", "</think>"]


def test_random_texts_are_judged_in_no_time() -> None:
    drawn = random.Random(0)
    slowest = 0.0
    for _ in range(3000):
        text = "".join(drawn.choices(PIECES, k=drawn.randint(0, 40)))
        start = time.process_time()
        for completion, gold in ((text, "42"), (rf"\boxed{{{text}}}", r"\sqrt{2}"), (rf"\boxed{{{text}}}", "x=3")):
            assert verify_math(completion, gold, timeout_s=1).score in (0.0, 1.0)
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 0.5


def test_random_golds_never_raise() -> None:
    drawn = random.Random(1)
    for _ in range(1500):
        gold = "".join(drawn.choices(PIECES, k=drawn.randint(0, 12)))
        assert verify_math(r"\boxed{42}", gold, timeout_s=1).score in (0.0, 1.0, None)


@pytest.mark.parametrize(
    "piece", ["(", "{", "-", "x", "1", "^", "_", "|", r"\{", r"\text{", r"\frac{1}{", "\\", ",", "9^"]
)
@pytest.mark.parametrize("num", [400, 300_000])
def test_long_texts_cost_the_parent_little(piece: str, num: int) -> None:
    start = time.process_time()
    assert verify_math(r"\boxed{" + piece * num + "}", "42").score == 0.0
    assert verify_math(piece * num + r"\boxed{41}", "42").score == 0.0
    assert verify_math(r"\boxed{41}" * (num // 10), "42").score == 0.0
    assert time.process_time() - start < 1.0


# Workers.

HANGS = r"2\begin{pmatrix}(a+b+c+d+e+f)^{400}\end{pmatrix}"
MATRIX = r"\begin{pmatrix}1\end{pmatrix}"


def test_an_answer_that_hangs_is_wrong_and_its_worker_is_killed() -> None:
    start = time.perf_counter()
    verdict = verify_math(rf"\boxed{{{HANGS}}}", MATRIX, timeout_s=1)
    assert verdict.score == 0.0 and verdict.reason == "not worked out in 1 s"
    assert time.perf_counter() - start < 3 * KILL_LIMIT_S
    assert verify_math(r"\boxed{3\sqrt2}", r"\sqrt{18}").score == 1.0, "the next one gets a worker that lives"


def test_a_worker_that_is_killed_from_outside_costs_no_answer_its_score() -> None:
    assert verify_math(r"\boxed{2\sqrt3}", r"\sqrt{12}").score == 1.0
    for worker in list(pool().alive):
        worker.process.send_signal(signal.SIGKILL)
    assert verify_math(r"\boxed{3\sqrt3}", r"\sqrt{27}").score == 1.0


def test_a_worker_that_dies_while_it_works_is_asked_again_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Pool.ask, []

    def dies_once(self: Pool, request: dict[str, Any], seconds: int) -> Any:
        calls.append(request)
        if len(calls) == 1:
            for worker in list(self.alive):
                threading.Timer(0.3, worker.process.kill).start()
            return real(self, {**request, "answer": HANGS, "gold": MATRIX}, 20)
        return real(self, request, seconds)

    monkeypatch.setattr(Pool, "ask", dies_once)
    assert verify_math(r"\boxed{5\sqrt3}", r"\sqrt{75}").score == 1.0
    assert len(calls) == 2


def test_a_worker_that_gets_no_processor_time_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strop.rewards.math.pool.MIN_WALL_S", 0.5)
    monkeypatch.setattr("strop.rewards.math.pool.WALL_FACTOR", 0)
    verify_math(r"\boxed{2\sqrt{17}}", r"\sqrt{68}")
    real = Pool.ask

    def stopped(self: Pool, request: dict[str, Any], seconds: int) -> Any:
        for worker in list(self.alive):
            worker.process.send_signal(signal.SIGSTOP)
        return real(self, request, seconds)

    started = Pool._new

    def unstarted(self: Pool, old: Any) -> Any:
        worker = started(self, old)
        worker.process.send_signal(signal.SIGSTOP)
        return worker

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "ask", stopped)
        patch.setattr(Pool, "_new", unstarted)
        verdict = verify_math(r"\boxed{3\sqrt{17}}", r"\sqrt{153}", timeout_s=2)
    assert verdict.score is None and "no processor time" in verdict.reason
    monkeypatch.undo()
    assert verify_math(r"\boxed{3\sqrt{17}}", r"\sqrt{153}", timeout_s=2).score == 1.0


def test_where_no_worker_starts_it_is_unscorable_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("strop.rewards.math.pool._pool", Pool(1))
        patch.setattr(sys, "executable", "/nowhere/python")
        verdict = verify_math(r"\boxed{7\sqrt2}", r"\sqrt{98}")
        assert verdict.score is None and verdict.reason.startswith("the verifier failed: a worker process cannot be")
        assert verify_math(r"\boxed{42}", "42").score == 1.0, "what needs no worker is judged"
    assert verify_math(r"\boxed{7\sqrt2}", r"\sqrt{98}").score == 1.0


def test_a_worker_that_ends_while_it_starts_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strop.rewards.math.pool._BOOT", "pass")
    with pytest.raises(Fault, match="ended while it started"):
        Pool(1).ask({"gold": "1", "answer": "1"}, 1)


def test_workers_outlive_the_thread_that_needed_them_first() -> None:
    def needs_one() -> None:
        assert verify_math(r"\boxed{2\sqrt5}", r"\sqrt{20}").score == 1.0

    pool().close()
    thread = threading.Thread(target=needs_one)
    thread.start()
    thread.join()
    (first, *_) = pool().alive
    time.sleep(0.3)
    assert first.process.poll() is None


PARENT = r"""
import os, signal, sys
sys.path[:0] = [{src!r}]
from strop.rewards.math.answer import verify_math
from strop.rewards.math.pool import pool
import threading
assert verify_math(r"\boxed{{2\sqrt2}}", r"\sqrt{{8}}").score == 1.0
print(*[w.process.pid for w in pool().alive], flush=True)
if {busy}:
    hanging = lambda: verify_math(r"\boxed{{{hangs}}}", r"{matrix}", timeout_s=60)
    threading.Thread(target=hanging, daemon=True).start()
    import time; time.sleep(1)
{end}
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)", "os._exit(1)"])
@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_its_parent(end: str, busy: bool) -> None:
    src = str(Path(answers.__file__).parents[3])
    code = PARENT.format(src=src, end=end, busy=busy, hangs=HANGS, matrix=MATRIX)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in done.stdout.split()]
    assert pids, done.stderr
    until = time.monotonic() + 10
    while any(running(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_forked_child_has_workers_of_its_own() -> None:
    assert verify_math(r"\boxed{2\sqrt7}", r"\sqrt{28}").score == 1.0
    child = os.fork()
    if child == 0:
        right = verify_math(r"\boxed{3\sqrt7}", r"\sqrt{63}").score == 1.0
        pool().close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verify_math(r"\boxed{4\sqrt7}", r"\sqrt{112}").score == 1.0


# The reward.


def group(gold: Any, *texts: str) -> Group:
    return Group("q", tuple(Completion(t) for t in texts), {"answer": gold})


def test_the_reward_scores_groups_in_order() -> None:
    found = MathAnswer()([group("42", r"\boxed{42}", r"\boxed{41}", "42"), group(None, r"\boxed{1}"), group("1/2")])
    assert [[v.score for v in verdicts] for verdicts in found] == [[1.0, 0.0, 0.0], [None], []]


def test_equal_pairs_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = Pool.ask, []

    def counted(self: Pool, request: dict[str, Any], seconds: int) -> Any:
        asked.append(request)
        return real(self, request, seconds)

    monkeypatch.setattr(Pool, "ask", counted)
    found = MathAnswer()([group(r"\sqrt{44}", *[r"\boxed{2\sqrt{11}}"] * 20)])
    assert [v.score for v in found[0]] == [1.0] * 20 and len(asked) == 1


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"math.timeout_s: 0 must be from 1 to 60"):
        MathAnswer(timeout_s=0)
    with pytest.raises(ValueError, match="no row has a column 'gold'"):
        MathAnswer(column="gold")([group("42", "x")])


def test_without_math_verify_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"math-verify, which is not installed; pip install 'strop\[train\]'"):
        load_rewards([MathAnswer()])
