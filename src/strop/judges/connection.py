"""Connections to a judge's server: the client and its proxies, limits on what is read, waits that servers ask for."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from strop.judges.secret import Secret

if TYPE_CHECKING:
    from strop.judges.endpoint import Endpoint

T = TypeVar("T")

_ours: ContextVar[bool] = ContextVar("_ours", default=False)


def _not_ours(record: logging.LogRecord) -> bool:
    """Keeps the HTTP library's logs of our requests out: a header of a reply may repeat the key."""
    return not _ours.get()


for _name in ("httpx2", *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))):
    logging.getLogger(_name).addFilter(_not_ours)


class JudgeError(ValueError):
    """What stops a judge altogether; a text for people."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_quietly(coroutine))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _quietly(coroutine)).result()


async def _quietly(coroutine: Coroutine[Any, Any, T]) -> T:
    _ours.set(True)
    return await coroutine


def open_client(endpoint: Endpoint, secret: Secret) -> httpx2.AsyncClient:
    """The connections to an endpoint, with its key where it has one."""
    headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
    if secret.value:
        headers["authorization"] = f"Bearer {secret.value}"
    try:
        return httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s), pool=None),
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
            follow_redirects=False,
            trust_env=not is_near(endpoint.url),
        )
    except (ImportError, ValueError) as error:  # a proxy in the environment that cannot be used
        raise JudgeError(secret.hide(f"http.url: the proxy settings of the environment: {error}")) from None


def is_near(url: str) -> bool:
    """Whether the server is on this machine, where a proxy would look for it on its own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def read(response: httpx2.Response, limit: int) -> bytes:
    """The body, up to one byte more than the limit."""
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            break
    return bytes(data[: limit + 1])


def retry_after(value: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds to wait by a Retry-After header, in seconds or as a date; None for none that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (when - now()).total_seconds())


def in_a_line(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join((str(error) or type(error).__name__).split())[:200]
