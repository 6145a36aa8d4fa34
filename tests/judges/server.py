"""A chat-completions server on this machine that behaves as a script says, also badly."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

NONCE = re.compile(r'\{"nonce": "([0-9a-f]{16})", "(\w+)": X\}')
Fault = Literal["hang", "drip", "drip headers", "reset", "truncate", "endless", "close"]


@dataclass(frozen=True)
class Act:
    """What one request gets."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None


Script = Callable[[int, dict[str, Any]], Act]
"""(how many requests came before, the body) -> what to do."""


def prompt_of(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def nonce_of(body: Mapping[str, Any]) -> tuple[str, str]:
    """The question's code and key, as a judge reads them in the prompt."""
    found = NONCE.findall(prompt_of(body))
    return found[-1] if found else ("", "")


def responses_of(body: Mapping[str, Any]) -> list[str]:
    """The quoted responses, in the order shown."""
    text = prompt_of(body)
    parts = re.findall(r"^<<< \w+ response(?: \w)?\n(.*?)\n>>> ", text, re.DOTALL | re.MULTILINE)
    return ["\n".join(line[2:] for line in part.split("\n")) for part in parts]


def completion(text: str | None, logprobs: Any = None, **changes: Any) -> Act:
    """A well-formed reply with this text."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": logprobs,
        "finish_reason": "stop",
    }
    value = {
        "id": "x",
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        **changes,
    }
    return Act(json.dumps(value).encode())


def verdict(body: Mapping[str, Any], value: Any, before: str = "") -> Act:
    """The verdict that was asked for."""
    nonce, key = nonce_of(body)
    return completion(before + json.dumps({"nonce": nonce, key: value}))


def verdict_with(body: Mapping[str, Any], value: str, options: Mapping[str, float]) -> Act:
    """The verdict, with the log-probabilities of tokens at its value."""
    nonce, key = nonce_of(body)
    tokens = ['{"nonce": "', nonce, '", "', key, '": "', value, '"}']
    places = [{"token": token, "logprob": -0.01, "top_logprobs": []} for token in tokens]
    places[5]["logprob"] = options.get(value, -9.0)
    places[5]["top_logprobs"] = [{"token": token, "logprob": p} for token, p in options.items()]
    return completion("".join(tokens), {"content": places})


class JudgeServer:
    """Listens from `with` on; `seen` are the bodies that came, `hits` their number."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.leaving = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(outer.script(-1, {"path": self.path}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    number = len(outer.seen)
                    outer.seen.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    with suppress(OSError):
                        self.reply(outer.script(number, body))
                finally:
                    with outer.lock:
                        outer.in_flight -= 1

            def reply(self, act: Act) -> None:
                if act.fault == "hang":
                    outer.leaving.wait(20)
                if act.fault == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if act.fault in ("hang", "reset", "close"):
                    self.close_connection = True
                    self.connection.close()
                    return
                if act.fault == "drip headers":
                    self.drip(b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 100_000)
                    return
                self.send_response(act.status)
                for name, value in {"Content-Length": str(len(act.body)), **act.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.send_body(act)

            def send_body(self, act: Act) -> None:
                if act.fault == "drip":
                    self.drip(act.body)
                elif act.fault == "endless":
                    while not outer.leaving.is_set():
                        self.wfile.write(b" " * 65536)
                elif act.fault == "truncate":
                    self.wfile.write(act.body[: len(act.body) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                else:
                    self.wfile.write(act.body)

            def drip(self, data: bytes) -> None:
                self.close_connection = True
                for place in range(len(data)):
                    if outer.leaving.wait(0.05):
                        return
                    self.wfile.write(data[place : place + 1])
                    self.wfile.flush()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False

    @property
    def hits(self) -> int:
        return len(self.seen)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        self.server.shutdown()
        self.server.server_close()
