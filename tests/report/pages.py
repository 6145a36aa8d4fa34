"""Reading a report as a program does: its tags, its text, and what holds of every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"
EVIL_NAME = "\"'><script>alert(1)<img src=x onerror=alert(1)>"  # no slash: a folder can be called so
VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Every start tag with its attributes, the text under each tag, and whether tags close in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open, self.wrong, self.scripts = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_data(self, data):
        (self.scripts if self.open[-1:] in (["script"], ["style"]) else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def check_safe(page):
    """What holds of every report: well formed, nothing fetched, nothing run but our script."""
    assert page.wrong == [] and page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {tag for tag, _ in page.tags} & {
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "audio",
        "video",
        "image",
        "use",
    }
    for tag, attrs in page.tags:
        assert not [
            name for name in attrs if name.startswith("on") or name in ("style", "srcset", "action", "formaction")
        ]
        for name in ("href", "src", "xlink:href", "fill"):
            if (tag, name) == ("rect", "fill"):
                assert re.fullmatch(r"url\(#hatch[12]\)", attrs.get("fill", "url(#hatch1)"))
            elif name in attrs:
                assert attrs[name].startswith(("#", "data:")), (tag, attrs)
    assert not [text for text in page.scripts if "://" in text or "@import" in text or "url(" in text]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for _, attrs in page.tags if attrs.get("href", "").startswith("#")}
    assert targets <= set(ids)
