"""A headless Chromium, driven over its debugging pipe; nothing to install but the browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--hide-scrollbars", "--force-device-scale-factor=1",
    "--font-render-hinting=none", "--remote-debugging-pipe",
)  # fmt: skip


def found() -> str | None:
    """The first browser of these names on the path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass(slots=True)
class Tab:
    """One page, and all that it said and asked for since it was opened."""

    write: int
    read: int
    session: str = ""
    number: int = 0
    rest: bytes = b""
    heard: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its result."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.heard.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.read, 1 << 20)
            assert more, "the browser has ended"
            self.rest += more
        line, self.rest = self.rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a file from disk, in a window of a size and a colour scheme; returns once it is loaded."""
        self.show(width=width, height=height, scheme=scheme)
        self.heard.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(m.get("method") == "Page.loadEventFired" for m in self.heard):
            self.heard.append(self._next())

    def show(self, *, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """The window's size, the colour scheme, and the medium (`print`)."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, as a hand presses it."""
        text = key if len(key) == 1 else {"Enter": "\r", "Space": " "}.get(key, "")
        name = " " if key == "Space" else key
        codes = {
            "Tab": 9,
            "Enter": 13,
            "Escape": 27,
            "Space": 32,
            "End": 35,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowRight": 39,
        }
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        base = {"key": name, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **base, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **base)

    def shot(self, path: Path, *, whole: bool = False, at: str = "") -> None:
        """A PNG of the window, of the whole page, or of the first element of a selector."""
        more: dict[str, Any] = {}
        if at:
            box = self.js(
                f"(() => {{ const b = document.querySelector({at!r}).getBoundingClientRect();"
                " return [b.x, b.y + scrollY, b.width, b.height] })()"
            )
            more["clip"] = {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole or bool(at), **more)[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def said(self, *methods: str) -> list[dict[str, Any]]:
        """What the page reported under these names."""
        return [m["params"] for m in self.heard if m.get("method") in methods]


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with one tab, ended with its block."""
    program = found()
    assert program is not None
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
    command = ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, pass_fds=(to_browser, from_browser), stdout=quiet, stderr=quiet) as process:
        os.close(to_browser)
        os.close(from_browser)
        tab = Tab(ours_out, ours_in)
        try:
            page = next(t for t in tab.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
            attached = tab.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
            tab.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                tab.call(f"{domain}.enable")
            yield tab
        finally:
            process.terminate()
            os.close(ours_out)
            os.close(ours_in)
