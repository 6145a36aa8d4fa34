"""Sending: attempts with a deadline and a size limit, waits between them, and when to stop altogether.

A request is tried again only after 408, 409, 429, 5xx and broken connections; the server's Retry-After is
kept, and holds back the other requests too. 401, 402, 403 and 404 stop everything, since no request would
fare better. Redirects are not followed: the key and the texts go to the address in the settings.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx2
import tenacity

from strop.judges.budget import OverBudget
from strop.judges.cache import Cache
from strop.judges.connection import JudgeError, in_a_line, open_client, read, retry_after, run
from strop.judges.protocol import Reply, Request
from strop.judges.secret import Secret, secret_of
from strop.judges.usage import Usage, usage_of
from strop.judges.wire import Parsed, error_of, read_body

if TYPE_CHECKING:
    from strop.judges.endpoint import Endpoint

AGAIN = (408, 409, 429)
HOPELESS = {
    401: "the key is refused; set http.key_env to the variable that holds it",
    402: "the account has no money left",
    403: "access is forbidden; is the key allowed to use this model?",
    404: "the address or the model is unknown there; check http.url (it mostly ends with /v1) and http.model",
}
MAX_BODY = 4 * 1024 * 1024
"""Bytes of a reply; what is larger is no verdict."""
PATIENCE = 3
"""Failed requests in a row, in multiples of the concurrency, after which the rest is not sent."""
CHECK_S = 10.0
SEVERAL = 4
"""So many requests at least must all fail to say that none will succeed."""
NEVER, UNASKED = "no answer:", "not asked:"
"""How the reason of a request begins that got no reply at all, or was not sent."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request on its way: its cache key, its body, and itself."""

    key: str
    body: dict[str, Any]
    request: Request


class _Transient(Exception):
    """An attempt worth repeating. `wait_s`: what the server asks for. `sent`: whether it may have been billed."""

    def __init__(self, reason: str, wait_s: float | None = None, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.sent = wait_s, sent


class _Refused(Exception):
    """An attempt that would fail again. `malformed`: a reply came, and another question may fare better."""

    def __init__(self, reason: str, *, malformed: bool = False) -> None:
        super().__init__(reason)
        self.malformed = malformed


def ask_all(endpoint: Endpoint, asked: Sequence[Asking], cache: Cache | None) -> list[Reply]:
    """A reply to each request, in order.

    Raises: JudgeError, once what is in flight has come back and is in the cache.
    """
    secret = secret_of(endpoint.key_env)
    return run(_Session(endpoint, cache, secret).all(asked))


def check(endpoint: Endpoint) -> None:
    """Raises JudgeError if the server cannot be reached, or refuses the key."""
    secret = secret_of(endpoint.key_env)
    run(_check(replace(endpoint, timeout_s=min(CHECK_S, endpoint.timeout_s)), secret))


async def _check(endpoint: Endpoint, secret: Secret) -> None:
    async with open_client(endpoint, secret) as client:
        try:
            async with asyncio.timeout(endpoint.timeout_s), client.stream("GET", f"{endpoint.base}/models") as response:
                status = response.status_code
        except (httpx2.RequestError, OSError, TimeoutError) as error:
            raise JudgeError(
                secret.hide(f"http.url: {endpoint.base} cannot be reached: {in_a_line(error)}; is the server running?")
            ) from None
    if status in (401, 402, 403):
        raise JudgeError(f"http.url: {endpoint.base} answers {status}: {HOPELESS[status]}")


@dataclass(slots=True)
class _Session:
    """One batch of requests."""

    endpoint: Endpoint
    cache: Cache | None
    secret: Secret
    not_before: float = 0.0
    failed_in_a_row: int = 0
    stop: str = ""
    client: httpx2.AsyncClient = field(init=False)

    async def all(self, asked: Sequence[Asking]) -> list[Reply]:
        slots = asyncio.Semaphore(self.endpoint.concurrency)

        async def one(asking: Asking) -> Reply:
            async with slots:
                return await self._answer(asking)

        async with open_client(self.endpoint, self.secret) as self.client:
            replies = list(await asyncio.gather(*map(one, asked)))
        if self.stop:
            raise JudgeError(self.stop)
        self._check_any(replies)
        usage_of(self.endpoint).add(Usage(failed=sum(reply.text is None for reply in replies)))
        return replies

    def _check_any(self, replies: Sequence[Reply]) -> None:
        """A server that answers none of several requests is down, or the settings are wrong: no case for abstaining.

        Raises: JudgeError with what it said most.
        """
        lost = [r.reason for r in replies if r.text is None and r.reason.startswith((NEVER, UNASKED))]
        if len(lost) == len(replies) and len(lost) >= SEVERAL:
            said = Counter(reason for reason in lost if reason.startswith(NEVER)).most_common(1)
            why = said[0][0] if said else lost[0]
            raise JudgeError(f"http.url: {self.endpoint.base}: all {len(lost)} requests failed: {why}")

    async def _answer(self, asking: Asking) -> Reply:
        """One request's reply, whatever happens."""
        if self.stop:
            return Reply(text=None, reason=f"{UNASKED} the judge was stopped")
        if self.failed_in_a_row >= PATIENCE * self.endpoint.concurrency:
            return Reply(text=None, reason=f"{UNASKED} {self.failed_in_a_row} requests before it failed")
        try:
            parsed = await self._attempts(asking)
        except OverBudget as error:
            return Reply(text=None, reason=str(error))
        except _Refused as error:
            return Reply(text=None, reason=self.secret.hide(str(error)), malformed=error.malformed)
        except _Transient as error:
            self.failed_in_a_row += 1
            return Reply(text=None, reason=self.secret.hide(f"{error} ({self.endpoint.retries + 1} attempts)"))
        self.failed_in_a_row = 0
        return await self._kept(asking, self._cleaned(parsed))

    def _cleaned(self, parsed: Parsed) -> Reply:
        """The reply without the key, should the server repeat it."""
        if self.secret.shows(parsed.text) or self.secret.shows("".join(parsed.tokens)):
            return Reply(text=self.secret.hide(parsed.text))
        return Reply(text=parsed.text, tokens=parsed.tokens, logprobs=parsed.logprobs)

    async def _kept(self, asking: Asking, reply: Reply) -> Reply:
        """The reply, on disk if it answers this question: a verdict without its code is no answer."""
        nonce, text = asking.request.nonce, reply.text or ""
        if self.cache is not None and (not nonce or nonce in text or text.strip() in asking.request.options):
            try:
                await asyncio.to_thread(self.cache.put, asking.key, reply.to_json())
            except OSError as error:
                self.stop = self.stop or f"http.cache: {self.cache.path} cannot be written: {error}"
        return reply

    async def _attempts(self, asking: Asking) -> Parsed:
        draws = random.Random(asking.key)
        endpoint = self.endpoint

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, _Transient) and error.wait_s is not None:
                return min(error.wait_s, endpoint.max_wait_s)
            longest = min(endpoint.backoff_s * 2.0 ** min(state.attempt_number - 1, 30), endpoint.max_wait_s)
            return longest * draws.uniform(0.5, 1.0)

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(endpoint.retries + 1),
            wait=wait,
            retry=tenacity.retry_if_exception_type(_Transient),
            sleep=asyncio.sleep,
            reraise=True,
        )
        parsed: Parsed = await retrying(self._attempt, asking)
        return parsed

    async def _attempt(self, asking: Asking) -> Parsed:
        """One call, paid for before it is sent."""
        await self._turn()
        body = json.dumps(asking.body, ensure_ascii=True).encode()
        budget, most = self.endpoint.budget, self._most(asking)
        budget.reserve(most)
        usage_of(self.endpoint).add(Usage(calls=1))
        try:
            status, wait_s, data = await self._exchange(body)
        except (_Transient, _Refused) as error:
            self._give_up(most, sent=not isinstance(error, _Transient) or error.sent)
            raise
        if status // 100 != 2:
            budget.settle(most, 0.0)
            raise self._failure(status, wait_s, data)
        parsed = read_body(data, asking.request.options)
        if isinstance(parsed, str):
            usage_of(self.endpoint).add(Usage(spend=most))
            raise _Refused(f"malformed reply: {parsed}", malformed=True)
        self._book(most, parsed)
        return parsed

    async def _turn(self) -> None:
        """Waits while the server wants no requests.

        Raises: _Refused if everything was stopped meanwhile.
        """
        while not self.stop and (wait := self.not_before - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, self.endpoint.max_wait_s))
        if self.stop:
            raise _Refused(f"{UNASKED} the judge was stopped")

    async def _exchange(self, body: bytes) -> tuple[int, float | None, bytes]:
        """Status, Retry-After and body of one attempt, all within the deadline.

        Raises: _Transient for a broken connection or a passed deadline, _Refused for what is no JSON reply.
        """
        url = f"{self.endpoint.base}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                self.client.stream("POST", url, content=body) as response,
            ):
                good = response.status_code // 100 == 2
                if good and response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise _Refused("malformed reply: a compressed body, which was not asked for", malformed=True)
                data = await read(response, MAX_BODY if good else 64 * 1024)
                if good and len(data) > MAX_BODY:
                    raise _Refused(f"malformed reply: larger than {MAX_BODY} bytes", malformed=True)
                return response.status_code, retry_after(response.headers.get("retry-after")), data
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise _Transient(f"{NEVER} the server cannot be reached: {in_a_line(error)}", sent=False) from None
        except (TimeoutError, httpx2.TimeoutException):
            raise _Transient(f"{NEVER} no whole reply within {self.endpoint.timeout_s:g} s") from None
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise _Refused(f"{NEVER} the request cannot be sent: {in_a_line(error)}") from None
        except (httpx2.RequestError, OSError) as error:
            raise _Transient(f"{NEVER} the connection failed: {in_a_line(error)}") from None

    def _failure(self, status: int, wait_s: float | None, data: bytes) -> Exception:
        said = self.secret.hide(error_of(data))
        if status in AGAIN or status >= 500:
            if wait_s is not None:
                wait = min(wait_s, self.endpoint.max_wait_s)
                self.not_before = max(self.not_before, time.monotonic() + wait)
            return _Transient(f"{NEVER} HTTP {status}: {said}", wait_s)
        if status in HOPELESS:
            self.stop = self.stop or f"http.url: {self.endpoint.base} answers {status}: {HOPELESS[status]} ({said})"
        if 300 <= status < 400:
            return _Refused(f"{NEVER} HTTP {status}: a redirect, which is not followed; set http.url to where it leads")
        return _Refused(f"{NEVER} HTTP {status}: {said}")

    def _most(self, asking: Asking) -> float:
        """The most a call can cost: no token is shorter than a byte."""
        endpoint, limit = self.endpoint, asking.request.max_tokens
        num = sum(len(m.content.encode("utf-8", "replace")) + 16 for m in asking.request.messages) + 64
        return (num * endpoint.prompt_price + limit * endpoint.completion_price) / 1e6

    def _give_up(self, reserved: float, *, sent: bool) -> None:
        """What was set aside for a call without a reply stays booked if it may have been billed."""
        self.endpoint.budget.settle(reserved, reserved if sent else 0.0)
        usage_of(self.endpoint).add(Usage(spend=reserved if sent else 0.0))

    def _book(self, reserved: float, parsed: Parsed) -> None:
        """What a call did cost, by the server's count; all that was set aside where it does not say."""
        prompt, completion = parsed.usage or (0, 0)
        cost = (prompt * self.endpoint.prompt_price + completion * self.endpoint.completion_price) / 1e6
        cost = reserved if parsed.usage is None else cost
        self.endpoint.budget.settle(reserved, cost)
        usage_of(self.endpoint).add(Usage(prompt_tokens=prompt, completion_tokens=completion, spend=cost))
