"""A judge over HTTP, on a server that misbehaves: retries, what stops everything, caps, cache, key."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strop.judges import Compare, Endpoint, Pair, Reply, Request, usage_of
from strop.judges.connection import JudgeError, retry_after
from strop.judges.transport import MAX_BODY
from strop.types import Message


def question(number: int = 0, **settings: Any) -> Request:
    return Request(task="critique", messages=(Message("user", f"say {number}"),), **settings)


def echo(web: ModuleType) -> Any:
    """Says the question's number back."""
    return lambda n, body: web.completion(f"said {web.prompt_of(body)}")


def test_replies_come_in_the_order_of_the_requests(web: ModuleType, endpoint: Any) -> None:
    def slow_first(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.05 if "say 0" in web.prompt_of(body) else 0)
        return echo(web)(n, body)

    with web.JudgeServer(slow_first) as server:
        replies = endpoint(server.url)([question(i) for i in range(20)])
    assert [reply.text for reply in replies] == [f"said say {i}" for i in range(20)]
    assert server.hits == 20 and server.most_in_flight <= 8


def test_the_body_is_what_the_field_calls_a_chat_completion(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(echo(web)) as server:
        endpoint(server.url, extra={"top_k": 5}, omit=("temperature",), tokens_field="max_completion_tokens")(
            [question(max_tokens=7, seed=3, options=("A", "B"))]
        )
    assert server.seen == [
        {
            "model": "judge",
            "messages": [{"role": "user", "content": "say 0"}],
            "max_completion_tokens": 7,
            "stream": False,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 20,
            "top_k": 5,
        }
    ]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_some_failures_are_tried_again(web: ModuleType, endpoint: Any, status: int) -> None:
    def fail_twice(n: int, body: dict[str, Any]) -> Any:
        return web.Act(b"busy", status) if n < 2 else web.completion("done")

    with web.JudgeServer(fail_twice) as server:
        (reply,) = endpoint(server.url)([question()])
    assert (reply.text, server.hits) == ("done", 3)


@pytest.mark.parametrize("status", [400, 405, 410, 413, 418, 422, 451, 301, 302, 307])
def test_others_are_not(web: ModuleType, endpoint: Any, status: int) -> None:
    target = {"Location": "http://127.0.0.1:9/else"} if status < 400 else {}
    with web.JudgeServer(lambda n, body: web.Act(b'{"error": {"message": "no"}}', status, target)) as server:
        (reply,) = endpoint(server.url)([question()])
    assert reply.text is None and f"HTTP {status}" in reply.reason and server.hits == 1


@pytest.mark.parametrize(("status", "words"), [(401, "key"), (402, "money"), (403, "forbidden"), (404, "http.model")])
def test_what_no_request_would_survive_stops_everything(
    web: ModuleType, endpoint: Any, status: int, words: str
) -> None:
    with (
        web.JudgeServer(lambda n, body: web.Act(b'{"error": "go away"}', status)) as server,
        pytest.raises(JudgeError, match=f"answers {status}.*{words}.*go away"),
    ):
        endpoint(server.url, concurrency=2)([question(i) for i in range(50)])
    assert server.hits <= 2


def test_a_streak_of_failures_abstains_and_soon_stops_sending(web: ModuleType, endpoint: Any) -> None:
    def one_answer(n: int, body: dict[str, Any]) -> Any:
        return web.completion("ok") if "say 0" in body["messages"][0]["content"] else web.Act(b"", 500)

    with web.JudgeServer(one_answer) as server:
        replies = endpoint(server.url, concurrency=2, retries=1)([question(i) for i in range(100)])
    assert replies[0].text == "ok" and all(reply.text is None for reply in replies[1:])
    assert "HTTP 500" in replies[1].reason and "not asked" in replies[-1].reason
    assert server.hits <= 1 + 2 * (3 * 2 + 2)


def test_a_server_that_answers_nothing_is_an_error_not_a_hundred_abstentions(endpoint: Any) -> None:
    with pytest.raises(JudgeError, match="all 9 requests failed: no answer: the server cannot be reached"):
        endpoint("http://127.0.0.1:9/v1", retries=0)([question(i) for i in range(9)])


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_and_capped(web: ModuleType, endpoint: Any, form: str) -> None:
    far = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True) if form == "date" else "3600"

    def later(n: int, body: dict[str, Any]) -> Any:
        return web.Act(b"", 429, {"Retry-After": far}) if n == 0 else web.completion("ok")

    with web.JudgeServer(later) as server:
        (reply,) = endpoint(server.url, max_wait_s=0.4, backoff_s=0.001)([question()])
    assert reply.text == "ok" and 0.35 < server.times[1] - server.times[0] < 2


def test_retry_after_reads_seconds_dates_and_nothing_else() -> None:
    def now() -> datetime:
        return datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

    assert retry_after("7", now) == 7 and retry_after(" 1.5 ", now) == 1.5
    assert retry_after("Thu, 01 Jan 2026 12:00:09 GMT", now) == 9
    assert retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    for junk in (None, "", "soon", "-3", "1e9", "nan", "9" * 40, "Thu, 99 Jan 2026", "\u0663"):
        assert retry_after(junk, now) is None, junk


def test_one_limit_holds_all_requests_back(web: ModuleType, endpoint: Any) -> None:
    """After a 429 with Retry-After nobody calls before its time."""

    def limited(n: int, body: dict[str, Any]) -> Any:
        return web.Act(b"", 429, {"Retry-After": "0.3"}) if n == 0 else web.completion("ok")

    with web.JudgeServer(limited) as server:
        replies = endpoint(server.url, concurrency=1, max_wait_s=5)([question(i) for i in range(3)])
    assert all(reply.text == "ok" for reply in replies)
    assert all(later - server.times[0] > 0.28 for later in server.times[1:])


BODIES: dict[str, bytes] = {
    "empty": b"",
    "no json": b"hello",
    "a page": b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>",
    "cut": b'{"choices": [{"message": {"content": "A',
    "a list": b"[]",
    "a text": b'"choices"',
    "a number": b"7",
    "null": b"null",
    "no choices": b"{}",
    "empty choices": b'{"choices": []}',
    "choices are a text": b'{"choices": "A"}',
    "a choice is null": b'{"choices": [null]}',
    "no message": b'{"choices": [{}]}',
    "message is a text": b'{"choices": [{"message": "A"}]}',
    "content is null": b'{"choices": [{"message": {"content": null}}]}',
    "content is a number": b'{"choices": [{"message": {"content": 5}}]}',
    "content is empty": b'{"choices": [{"message": {"content": ""}}]}',
    "parts without text": b'{"choices": [{"message": {"content": [{"type": "image"}, 3]}}]}',
    "an error": b'{"error": {"message": "overloaded"}}',
    "an error in an error": b'{"error": {"error": {"message": [1]}}}',
    "twice": b'{"choices": [], "choices": [{"message": {"content": "A"}}]}',
    "not utf-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "utf-16": '{"choices": []}'.encode("utf-16"),
    "deep": b'{"choices": ' + b"[" * 100_000,
    "a huge number": b'{"choices": ' + b"9" * 5000 + b"}",
    "zeros": b"\x00" * 100,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_an_abstention(web: ModuleType, endpoint: Any, tmp_path: Path, name: str) -> None:
    with web.JudgeServer(lambda n, body: web.Act(BODIES[name])) as server:
        (reply,) = endpoint(server.url)([question()])
    assert reply.text is None and reply.malformed and reply.reason.startswith("malformed reply: "), reply
    assert server.hits == 1 and not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("hang", "no whole reply within 0.4 s"),
        ("drip", "no whole reply within 0.4 s"),
        ("drip headers", "no whole reply within 0.4 s"),
        ("reset", "the connection failed"),
        ("close", "the connection failed"),
        ("truncate", "the connection failed"),
    ],
)
def test_broken_connections_are_tried_again_then_abstained(
    web: ModuleType, endpoint: Any, fault: str, why: str
) -> None:
    good = web.completion("x" * 200).body
    with web.JudgeServer(lambda n, body: web.Act(good, fault=fault)) as server:
        began = time.monotonic()
        (reply,) = endpoint(server.url, retries=1, timeout_s=0.4)([question()])
    assert reply.text is None and why in reply.reason and "(2 attempts)" in reply.reason
    assert server.hits == 2 and time.monotonic() - began < 3


RAW = [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    b"HTTP/1.1 999 \r\n\r\n",
    b"HTTP/1.1 429 X\r\nRetry-After: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    b"",
]


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
def test_what_is_no_http_is_tried_again_then_abstained(endpoint: Any, raw: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            peer, _address = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(65536)
                peer.sendall(raw)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        (reply,) = endpoint(url, retries=1, timeout_s=3)([question()])
    assert reply.text is None and reply.reason.startswith("no answer: ") and "(2 attempts)" in reply.reason


def test_bodies_without_an_end_are_cut(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(lambda n, body: web.Act(headers={"Content-Length": "999999999"}, fault="endless")) as server:
        (reply,) = endpoint(server.url)([question()])
    assert reply.text is None and f"larger than {MAX_BODY} bytes" in reply.reason and server.hits == 1


def test_a_compressed_body_is_not_unpacked(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(lambda n, body: web.Act(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})) as server:
        (reply,) = endpoint(server.url)([question()])
        assert reply.text is None and "compressed" in reply.reason
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("length", ["10", "100000"])
def test_a_wrong_content_length_is_an_abstention(web: ModuleType, endpoint: Any, length: str) -> None:
    def wrong(n: int, body: dict[str, Any]) -> Any:
        return web.Act(web.completion("fine").body, headers={"Content-Length": length}, fault="truncate")

    with web.JudgeServer(wrong) as server:
        (reply,) = endpoint(server.url, retries=0, timeout_s=1)([question()])
    assert reply.text is None and reply.reason


LOGPROBS: dict[str, Any] = {
    "a text": "x",
    "a list": [1],
    "content is null": {"content": None},
    "content holds numbers": {"content": [1, 2]},
    "a token is a number": {"content": [{"token": 3, "logprob": -1}]},
    "NaN": {"content": [{"token": "A", "logprob": math.nan, "top_logprobs": [{"token": "B", "logprob": math.nan}]}]},
    "infinite": {"content": [{"token": "A", "logprob": math.inf, "top_logprobs": [{"token": "B", "logprob": 1e9}]}]},
    "a huge int": {"content": [{"token": "A", "logprob": 10**400, "top_logprobs": None}]},
    "texts": {"content": [{"token": "A", "logprob": "-1", "top_logprobs": ["B"]}]},
    "true": {"content": [{"token": "A", "logprob": True, "top_logprobs": {"B": -1}}]},
    "half a character": {"content": [{"token": "\ud800", "logprob": -1, "top_logprobs": []}]},
}  # fmt: skip


@pytest.mark.parametrize("name", LOGPROBS)
def test_log_probabilities_that_are_none_are_left_out(web: ModuleType, endpoint: Any, name: str) -> None:
    with web.JudgeServer(lambda n, body: web.completion("A", LOGPROBS[name])) as server:
        backend = endpoint(server.url)
        (reply,) = backend([question(options=("A", "B"))])
        assert backend([question(options=("A", "B"))])[0].text == "A"
    assert reply.text == "A" and not any(reply.logprobs)


def test_usage_that_is_none_costs_what_was_set_aside(web: ModuleType, endpoint: Any) -> None:
    junk = [None, 3, {"prompt_tokens": -1}, {"prompt_tokens": 1e400}, {"prompt_tokens": True}, {"prompt_tokens": "9"}]

    with web.JudgeServer(lambda n, body: web.completion("ok", usage=junk[n])) as server:
        backend = endpoint(server.url, max_spend=1.0, prompt_price=1.0, completion_price=1.0, concurrency=1)
        backend([question(i, max_tokens=100) for i in range(6)])
    most = (len("say 0") + 16 + 64 + 100) / 1e6
    assert backend.budget.spent == pytest.approx(6 * most) == usage_of(backend).total.spend


# The caps.


@pytest.mark.parametrize("cap", [0, 1, 7])
def test_the_cap_on_calls_holds_under_concurrency(web: ModuleType, endpoint: Any, cap: int) -> None:
    """Two threads, many tasks, a server that fails every third time: never one call more."""

    def flaky(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.005)
        return web.Act(b"", 503) if n % 3 == 0 else web.completion("ok")

    with web.JudgeServer(flaky) as server:
        backend = endpoint(server.url, max_calls=cap, concurrency=16)
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(backend, [[question(i) for i in range(j, 60, 2)] for j in range(2)]))
    replies = [reply for part in parts for reply in part]
    assert server.hits == cap == backend.budget.calls == usage_of(backend).total.calls
    lost = [reply.reason for reply in replies if reply.text is None]
    assert len(replies) - len(lost) <= cap and all(f"max_calls={cap}" in why for why in lost)


def test_the_cap_on_money_holds_under_concurrency(web: ModuleType, endpoint: Any) -> None:
    """A call costs 100 + 10 tokens by the server's count; what is in flight counts at its highest cost."""

    def slow(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.01)
        return web.completion("ok")

    with web.JudgeServer(slow) as server:
        backend = endpoint(
            server.url, max_spend=0.0015, prompt_price=1.0, completion_price=2.0, concurrency=16, retries=0
        )
        replies = backend([question(i, max_tokens=20) for i in range(80)])
    assert backend.budget.spent <= 0.0015 and backend.budget.spent == pytest.approx(server.hits * 120e-6)
    assert 5 <= server.hits <= 12
    assert "max_spend=0.0015" in next(reply.reason for reply in replies if reply.text is None)


def test_money_needs_prices() -> None:
    with pytest.raises(ValueError, match="max_spend needs http.prompt_price"):
        Endpoint(url="http://x/v1", model="m", max_spend=1)


# The cache.


def test_a_rerun_makes_no_calls(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(echo(web)) as server:
        first = endpoint(server.url)([question(i) for i in range(5)] + [question(0)])
        assert server.hits == 5, "equal requests are sent once"
        again = endpoint(server.url, timeout_s=9.0)([question(i) for i in range(6)])
    assert server.hits == 6
    assert [r.text for r in again[:5]] == [r.text for r in first[:5]] and all(r.cached for r in again[:5])


def test_another_question_model_or_setting_is_not_in_the_cache(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(echo(web)) as server:
        endpoint(server.url)([question()])
        endpoint(server.url)([question(temperature=1.0)])
        endpoint(server.url)([question(seed=1)])
        endpoint(server.url, extra={"top_k": 1})([question()])
        Endpoint(url=server.url, model="other", cache=endpoint(server.url).cache)([question()])
        endpoint(server.url + "/")([question()])
    assert server.hits == 5


def test_a_torn_line_and_an_altered_one_are_asked_again(web: ModuleType, endpoint: Any, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with web.JudgeServer(echo(web)) as server:
        endpoint(server.url, cache=str(file), concurrency=1)([question(i) for i in range(3)])
        lines = file.read_bytes().splitlines(keepends=True)
        copy = tmp_path / "copy.jsonl"
        copy.write_bytes(lines[0] + lines[1].replace(b"say 1", b"say 9") + b"\xff\n[]\n{}\n" + lines[2][:-9])
        replies = endpoint(server.url, cache=str(copy))([question(i) for i in range(4)])
        assert [r.text for r in replies] == [f"said say {i}" for i in range(4)] and server.hits == 3 + 3
        fresh = tmp_path / "fresh.jsonl"
        fresh.write_bytes(copy.read_bytes())
        assert all(r.cached for r in endpoint(server.url, cache=str(fresh))([question(i) for i in range(4)]))
    assert file.stat().st_mode & 0o077 == 0


def test_failures_and_verdicts_of_other_questions_are_not_cached(web: ModuleType, endpoint: Any) -> None:
    with web.JudgeServer(lambda n, body: web.completion('{"nonce": "0123456789abcdef", "better": "A"}')) as server:
        judge = Compare(backend=endpoint(server.url))
        for calls in (4, 8):
            (said,) = judge([Pair(prompt="q", first="x", second="y")])
            assert said.probability is None and "another question's code" in said.reason and server.hits == calls


def _ask_all(url: str, cache: str, number: int, done: Any) -> None:
    backend = Endpoint(url=url, model="judge", cache=cache, concurrency=2)
    backend([question(i) for i in range(number)])
    done.put(True)


def test_a_killed_run_asks_nothing_twice(web: ModuleType, tmp_path: Path) -> None:
    """kill -9 in the middle: what was answered and read is on disk; at most what was in flight is asked again."""
    context = multiprocessing.get_context("forkserver")
    gate = threading.Event()

    def slow(n: int, body: dict[str, Any]) -> Any:
        if n >= 10:
            gate.wait(20)
        return echo(web)(n, body)

    with web.JudgeServer(slow) as server:
        done = context.Queue()
        child = context.Process(target=_ask_all, args=(server.url, str(tmp_path), 20, done))
        child.start()
        deadline = time.monotonic() + 30
        while server.hits < 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        gate.set()
        backend = Endpoint(url=server.url, model="judge", cache=str(tmp_path), concurrency=2)
        replies = backend([question(i) for i in range(20)])
    assert sum(reply.cached for reply in replies) == 10 and server.hits == 12 + 10
    assert [reply.text for reply in replies] == [f"said say {i}" for i in range(20)]


def test_two_processes_share_a_cache(web: ModuleType, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    with web.JudgeServer(echo(web)) as server:
        done = context.Queue()
        children = [context.Process(target=_ask_all, args=(server.url, str(tmp_path), 40, done)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        calls = server.hits
        backend = Endpoint(url=server.url, model="judge", cache=str(tmp_path))
        assert all(reply.cached for reply in backend([question(i) for i in range(40)])) and server.hits == calls


# The key.

KEY = "sk-very-secret-0123456789/+=="


def test_the_key_is_sent_and_shown_nowhere(
    web: ModuleType,
    endpoint: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Servers that repeat the key in a reply, in an error and in log-probabilities."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    token = {"content": [{"token": KEY, "logprob": -1.0, "top_logprobs": [{"token": "A", "logprob": -1.0}]}]}
    acts = [
        web.completion(f"your key is {KEY}", token),
        web.Act(json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(), 400),
        web.Act(KEY.encode(), 500),
        web.Act(KEY.encode(), 401, {"Location": f"http://127.0.0.1:9/?k={KEY}"}),
    ]
    shown: list[str] = []
    with web.JudgeServer(lambda n, body: acts[int(web.prompt_of(body)[-1])]) as server:
        backend = endpoint(server.url, key_env="JUDGE_KEY", retries=1)
        for i in range(3):
            shown.append(repr(backend([question(i, options=("A", "B"))])))
        with pytest.raises(JudgeError) as caught:
            backend([question(3)])
        shown += [repr(caught.value), repr(caught.value.__cause__), repr(backend)]
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
    out, err = capfd.readouterr()
    files = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    for text in (*shown, caplog.text, out, err, files):
        assert KEY not in text and KEY[:12] not in text
    assert "your key is [key]" in shown[0] and "bad key [key]" in shown[1] and "your key is [key]" in files


def test_a_missing_key_is_said_before_anything_is_sent(
    web: ModuleType, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with web.JudgeServer(echo(web)) as server:
        with pytest.raises(ValueError, match="environment variable JUDGE_KEY is not set"):
            endpoint(server.url, key_env="JUDGE_KEY")([question()])
        monkeypatch.setenv("JUDGE_KEY", "secret\nvalue")
        with pytest.raises(ValueError, match="cannot be a key") as caught:
            endpoint(server.url, key_env="JUDGE_KEY")([question()])
    assert "secret" not in str(caught.value) and server.hits == 0


# Settings.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "localhost:8000"}, "no web address"),
        ({"url": "ftp://x/v1"}, "no web address"),
        ({"url": "http://"}, "no web address"),
        ({"url": "http://[::1"}, "no web address"),
        ({"url": "http://a b/v1"}, "no web address"),
        ({"url": "http://x\x00/v1"}, "no web address"),
        ({"url": "https://user:pass@x/v1"}, "http.key_env"),
        ({"url": "http://x/v1?key=1"}, "without"),
        ({"model": ""}, "http.model is empty"),
        ({"concurrency": 0}, "concurrency must be positive"),
        ({"max_calls": -1}, "max_calls must not be negative"),
        ({"extra": {"messages": []}}, "cannot change messages"),
        ({"top_logprobs": 99}, "at most 20"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Endpoint(**{"url": "http://x/v1", "model": "m", **settings})
    assert "pass@" not in str(caught.value)


def test_a_proxy_is_not_asked_for_this_machine(web: ModuleType, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with web.JudgeServer(echo(web)) as server:
        assert endpoint(server.url)([question()])[0].text == "said say 0"


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://127.0.0.1:9")
    with pytest.raises(JudgeError, match="proxy settings of the environment"):
        Endpoint(url="http://judge.invalid/v1", model="m", cache=None)([question()])


def test_it_works_inside_a_running_event_loop(web: ModuleType, endpoint: Any) -> None:
    import asyncio

    async def notebook() -> list[Reply]:
        return list(endpoint(server.url)([question()]))

    with web.JudgeServer(echo(web)) as server:
        assert asyncio.run(notebook())[0].text == "said say 0"


def test_the_check_finds_a_server_that_is_not_there_and_a_refused_key(web: ModuleType, endpoint: Any) -> None:
    with pytest.raises(JudgeError, match="cannot be reached.*is the server running"):
        endpoint("http://127.0.0.1:9/v1").check()
    with web.JudgeServer(lambda n, body: web.Act(b"", 401)) as server, pytest.raises(JudgeError, match="401"):
        endpoint(server.url).check()
    with web.JudgeServer(lambda n, body: web.Act(b"", 404)) as server:
        endpoint(server.url).check()
    assert server.hits == 0
