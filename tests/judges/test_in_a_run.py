"""A judge over HTTP while a policy trains: rewards, metrics, a rerun from the cache, and a key that stays unseen."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import strop

KEY = "sk-another-secret-42"


def recipe(tiny: Any, runs: Path, url: str, cache: Path, **settings: Any) -> Any:
    backend = {"name": "http", "url": url, "model": "judge", "key_env": "A_KEY", "cache": str(cache), "backoff_s": 0.01}
    reward = {"name": "judge", "backend": backend, **settings}
    stage = {**tiny.grpo(steps=2, batch_size=2), "passes": 1, "minibatches": 1, "rewards": [reward]}
    return tiny.recipe(runs, stage)


@pytest.mark.parametrize("method", ["pairs", "rank"])
def test_a_policy_is_rewarded_by_a_judge(
    web: ModuleType, tiny: Any, small_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("A_KEY", KEY)

    def longest(n: int, body: dict[str, Any]) -> Any:
        if n < 0:
            return web.Act(b"{}")
        if n == 1:
            return web.Act(b"", 503)
        lengths = [len(text) for text in web.responses_of(body)]
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        letters = ["ABCDEFG"[i] for i in order]
        return web.verdict(body, letters if web.nonce_of(body)[1] == "order" else letters[0])

    with web.JudgeServer(longest) as server:
        run = strop.run(recipe(tiny, tmp_path / "a", server.url, tmp_path / "c", method=method), display="quiet").path
        first, calls = small_runs.numbers(run), server.hits
        again = strop.run(recipe(tiny, tmp_path / "b", server.url, tmp_path / "c", method=method), display="quiet").path
    assert calls == server.hits, "the same run asks nothing anew"
    second = small_runs.numbers(again)
    figure = "rewards/judge/flip_rate" if method == "pairs" else "rewards/judge/agreement"
    assert all(figure in row and row["rewards/judge/calls"] > 0 for row in first)
    assert [r["rewards/judge/mean"] for r in first] == [r["rewards/judge/mean"] for r in second]
    assert all(row["rewards/judge/calls"] == 0 and row["rewards/judge/cached"] > 0 for row in second)
    assert first[0]["rewards/judge/mean"] == pytest.approx(0.5), "wins and ranks of siblings sum to a half each"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written and b"A_KEY" in written


def test_a_refused_key_stops_the_run_before_it_samples(
    web: ModuleType, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    with (
        web.JudgeServer(lambda n, body: web.Act(b"", 401)) as server,
        pytest.raises(ValueError, match="answers 401: the key is refused"),
    ):
        strop.run(recipe(tiny, tmp_path, server.url, tmp_path / "c"), display="quiet")
    assert server.hits == 0
