"""The worker process: it answers, it is killed when it hangs, and nothing it is given runs."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from strop.rewards.gym import client
from strop.rewards.gym.check import raw_score

pytestmark = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")

CONFIG = {"seed": 7, "size": 12}


def entry(name: str) -> dict[str, Any]:
    reply = client.ask({"op": "make", "name": name, "config": CONFIG, "start": 0, "stop": 1}, timeout_s=60)
    made: dict[str, Any] = reply["entries"][0]
    return made


def score(name: str, answer: str, timeout_s: float = 20.0) -> float | str:
    return raw_score(name, CONFIG, entry(name), answer, timeout_s=timeout_s)


@pytest.mark.parametrize("name", ["string_insertion", "n_queens", "binary_matrix", "spiral_matrix", "countdown"])
def test_no_answer_is_evaluated(name: str, tmp_path: Path) -> None:
    for code in ("open({!r}, 'w').write('x')", "__import__('pathlib').Path({!r}).touch()"):
        assert score(name, code.format(str(tmp_path / "made"))) in (0.0, 0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_literal_is_still_read() -> None:
    made = entry("spiral_matrix")
    listed = "[" + ", ".join(made["answer"].split()) + "]"
    assert raw_score("spiral_matrix", CONFIG, made, listed, timeout_s=20) == 0.1  # what the scorer gives to a list


def test_a_hanging_scorer_is_killed_and_the_next_request_served() -> None:
    assert score("simple_integration", "1e999999999", timeout_s=1.0) == "the scorer took more than 1 s"
    assert score("simple_integration", "0") == 0.0


def test_a_killed_worker_is_replaced() -> None:
    score("leg_counting", "1")
    process = client._STATE.process
    assert process is not None
    os.kill(process.pid, 9)
    process.wait()
    assert score("leg_counting", entry("leg_counting")["answer"]) == 1.0


def test_many_threads_may_ask() -> None:
    made = entry("leg_counting")
    found: list[float | str] = []

    def ask(answer: str) -> None:
        found.extend(raw_score("leg_counting", CONFIG, made, answer, timeout_s=60) for _ in range(20))

    threads = [threading.Thread(target=ask, args=(a,)) for a in (made["answer"], "x") for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0.0] * 80 + [1.0] * 80  # type: ignore[type-var]


def test_unknown_names_and_settings_are_told() -> None:
    def refused(name: str, config: dict[str, Any]) -> str:
        reply = client.ask({"op": "make", "name": name, "config": config, "start": 0, "stop": 1}, timeout_s=60)
        return str(reply["refused"])

    assert "no generator 'leg_countin'; did you mean leg_counting" in refused("leg_countin", {})
    assert "leg_counting has no setting 'animals'; it has" in refused("leg_counting", {"animals": 3})


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'strop\[tasks\]'"):
        client.ask({}, timeout_s=1)
