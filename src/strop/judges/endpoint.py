"""A judge behind a URL that speaks OpenAI's chat completions: vLLM, Ollama, a hosted service.

    backend: {name: http, url: http://localhost:8000/v1, model: my-judge}
    backend: {name: http, url: https://api.example.com/v1, model: big, key_env: JUDGE_KEY, max_calls: 5000}

What was answered once is on disk and never asked again, so a stopped run goes on where it was. Nothing is
sent that the caps on calls and money would not cover. The key comes from the environment and is shown nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from strop.judges.budget import Budget, budget_of
from strop.judges.cache import Cache, cache_of, cache_path, content_key
from strop.judges.protocol import Reply, Request
from strop.judges.usage import Usage, usage_of
from strop.judges.wire import body_of
from strop.lazy import lazy_module

if TYPE_CHECKING:
    from strop.judges import transport
else:
    transport = lazy_module("strop.judges.transport")  # brings the HTTP library

ASKING = "/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a server's model answers; a request that gets no answer is an abstention with the reason.

    Attributes:
        url: up to and with the version, as http://localhost:8000/v1.
        model: the server's name for it.
        key_env: the environment variable that holds the key; null sends none.
        timeout_s: one attempt, from its start to the reply's last byte.
        concurrency: requests in flight.
        retries: further attempts after 408, 409, 429, 5xx, and broken connections; no others.
        backoff_s: the wait before the first of them, doubling, unless the server names one (Retry-After).
        max_wait_s: the longest wait, the server's wish included.
        max_calls: requests this process may send, every attempt counted; null sets no cap.
        max_spend: money it may spend, by the prices; null sets no cap.
        prompt_price, completion_price: of a million tokens.
        cache: "auto" for the user's cache folder, a folder, a .jsonl file, or null for none.
        top_logprobs: probabilities asked for a token where a verdict can use them; 0 asks for none.
        tokens_field: what the server calls the reply's length limit.
        omit: fields of the body that the server refuses, as temperature or seed.
        extra: further fields of the body, as they stand.
    """

    url: str
    model: str
    name: Literal["http"] = "http"
    key_env: str | None = None
    timeout_s: float = 120.0
    concurrency: int = 8
    retries: int = 5
    backoff_s: float = 0.5
    max_wait_s: float = 60.0
    max_calls: int | None = None
    max_spend: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    cache: str | None = "auto"
    top_logprobs: int = 20
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check(bool(self.model), "http.model is empty; name the server's model")
        for key in ("timeout_s", "concurrency", "backoff_s", "max_wait_s"):
            _check(getattr(self, key) > 0, f"http.{key} must be positive, got {getattr(self, key)}")
        for key in ("retries", "max_calls", "max_spend", "prompt_price", "completion_price", "top_logprobs"):
            value = getattr(self, key)
            _check(value is None or value >= 0, f"http.{key} must not be negative, got {value}")
        _check(self.top_logprobs <= 20, f"http.top_logprobs is at most 20, got {self.top_logprobs}")
        priced = self.prompt_price > 0 or self.completion_price > 0
        _check(
            self.max_spend is None or priced,
            "http.max_spend needs http.prompt_price and http.completion_price, of a million tokens",
        )
        clash = sorted({"model", "messages", "stream", "n"} & {*self.extra, *self.omit})
        _check(not clash, f"http.extra and http.omit cannot change {', '.join(clash)}")

    @property
    def base(self) -> str:
        """The URL without the path of chat completions."""
        return self.url.rstrip("/").removesuffix(ASKING)

    @property
    def budget(self) -> Budget:
        """What this process may still spend; kept by server, model and caps."""
        key = repr((self.base, self.model, self.max_calls, self.max_spend, self.prompt_price, self.completion_price))
        return budget_of(key, self.max_calls, self.max_spend)

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in order; equal requests are sent once.

        Raises: JudgeError (a ValueError) where no request can be answered: a refused key, an unknown model, a
            server that cannot be reached; what was answered until then is in the cache.
        """
        if not requests:
            return []
        cache = self._cache()
        bodies = [self.body(request) for request in requests]
        keys = [content_key({"url": self.base, "body": body}) for body in bodies]
        known = {} if cache is None else _cached(cache, keys)
        waiting = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(waiting.values())
        asked = [transport.Asking(keys[i], bodies[i], requests[i]) for i in places]
        answers = transport.ask_all(self, asked, cache) if asked else []
        fresh = dict(zip((keys[i] for i in places), answers, strict=True))
        usage_of(self).add(Usage(cached=sum(key in known for key in keys)))
        return [known[key] if key in known else fresh[key] for key in keys]

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request."""
        return body_of(
            request,
            self.model,
            top_logprobs=self.top_logprobs,
            tokens_field=self.tokens_field,
            omit=self.omit,
            extra=self.extra,
        )

    def check(self) -> None:
        """Asks the server for its models, which costs nothing, to see that it is there and takes the key.

        Raises: JudgeError saying what is wrong.
        """
        transport.check(self)

    def _cache(self) -> Cache | None:
        path = cache_path(self.cache, self.base, self.model)
        return None if path is None else cache_of(path)


def _cached(cache: Cache, keys: Sequence[str]) -> dict[str, Reply]:
    found = {}
    for key in dict.fromkeys(keys):
        reply = Reply.from_json(cache.get(key))
        if reply is not None:
            found[key] = reply
    return found


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        plain = url.isprintable() and " " not in url and (parts.port is None or parts.port > 0)
        good = plain and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    shown = url if "@" not in url else url.rpartition("@")[2]
    _check(good, f"http.url: {shown!r} is no web address; write it as http://localhost:8000/v1")
    _check(
        "@" not in parts.netloc,
        "http.url holds a user or password; put the key into a variable and name that in http.key_env",
    )
    _check(not parts.query and not parts.fragment, "http.url must end with its path, without ? and #")


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)
