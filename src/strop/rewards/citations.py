"""Citations: "the response that includes citations wins", and the ones that lead nowhere do not.

Four styles are found after the thinking, outside of code: `numbers` ([1], [2, 5], [3-5]; also
footnotes [^1]), `authors` ((Smith, 2020), Smith et al. (2020)), `links` (Markdown's [text](url))
and `urls` that stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from strop.rewards.extract import after_think
from strop.rewards.protocol import check_column, each
from strop.types import Group, Verdict

Style = Literal["numbers", "authors", "links", "urls"]
STYLES: tuple[Style, ...] = ("numbers", "authors", "links", "urls")

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(
    r"!?\[[^\[\]\n]{1,300}\]\(\s{0,3}<?((?:https?://|doi:|www\.)[^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)?)>?[^()\n]{0,200}\)"
)
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\[\]()\"'`]+[^\s<>\[\]()\"'`.,;:!?*_]")
_NUMBERS = re.compile(r"\[(\^?\d{1,4}(?:\s?[,;–-]\s?\^?\d{1,4}){0,30})\](?!\(|:)")
_RANGE = re.compile(r"(\d+)(?:\s?[–-]\s?\^?(\d+))?")
_NAME = r"[A-Z][^\W\d_]{1,30}+(?:[-'’][^\W\d_]{1,30}+){0,3}+"
_NAMES = rf"{_NAME}(?:\s(?:et\sal\.?|(?:and|&)\s{_NAME}))?"
_AUTHORS = re.compile(
    rf"\((?:(?:see|cf\.|e\.g\.,?)\s)?({_NAMES},?\s(?:1[5-9]|20)\d\d[a-z]?)[^()\n]{{0,120}}\)"
    rf"|\b({_NAMES}\s\((?:1[5-9]|20)\d\d[a-z]?\))"
)
_MAX_RANGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Citations:
    """1 if the response has at least `least` different citations and each leads to a source, else 0.

    Attributes:
        styles: which are looked for: numbers, authors, links, urls.
        least: different citations needed.
        sources: the row's column with its sources, by which citations are checked: a number must be
            the place of one (from 1), a link or URL one of theirs, an author's name stand in one;
            null checks nothing. A list of texts or objects, or an object by number.
    """

    name: Literal["citations"] = "citations"
    weight: float = 1.0
    label: str | None = None
    styles: tuple[Style, ...] = STYLES
    least: int = 1
    sources: str | None = None

    def __post_init__(self) -> None:
        if not self.styles:
            raise ValueError(f"citations.styles: is empty, so nothing is found; give some of {', '.join(STYLES)}")
        if self.least < 1:
            raise ValueError(f"citations.least: {self.least} asks for nothing; give at least 1")

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        if self.sources is None:
            return each(groups, lambda c, _: verify_citations(c.text, self.styles, least=self.least))
        column = self.sources
        check_column(groups, column, self.name)
        return each(groups, lambda c, g: _checked(c.text, self.styles, self.least, g.row.get(column)))


def verify_citations(
    text: str, styles: Sequence[Style] = STYLES, *, least: int = 1, sources: Sequence[str] | None = None
) -> Verdict:
    """Whether the text has enough different citations, each to one of the sources if these are given: 1 or 0."""
    found = list(dict.fromkeys(citations(text, styles)))
    shown = ", ".join(cited for _, cited in found[:8])
    wrong = [cited for style, cited in found if sources is not None and not _leads(style, cited, sources)]
    if wrong:
        return Verdict(0.0, f"not among the {len(sources or ())} sources: {', '.join(wrong[:8])}", shown)
    return Verdict(float(len(found) >= least), f"{len(found)} different citations, at least {least} wanted", shown)


def citations(text: str, styles: Sequence[Style] = STYLES) -> Iterator[tuple[Style, str]]:
    """Every citation of the styles, with its style; a range of numbers gives each of them."""
    text = _CODE.sub(" ", after_think(text))
    links = [match[1] for match in _LINK.finditer(text)]
    rest = _LINK.sub(" ", text)
    if "links" in styles:
        yield from (("links", url) for url in links)
    if "urls" in styles:
        yield from (("urls", match[0]) for match in _URL.finditer(rest))
    if "numbers" in styles:
        yield from (("numbers", str(number)) for match in _NUMBERS.finditer(rest) for number in _numbers(match[1]))
    if "authors" in styles:
        yield from (("authors", match[1] or match[2]) for match in _AUTHORS.finditer(rest))


def _numbers(inside: str) -> Iterator[int]:
    for match in _RANGE.finditer(inside):
        first, last = int(match[1]), int(match[2] or match[1])
        yield from range(first, min(last, first + _MAX_RANGE) + 1) if last >= first else (first, last)


def _checked(text: str, styles: Sequence[Style], least: int, sources: Any) -> Verdict:
    if sources is None or not isinstance(sources, list | tuple | Mapping):
        return Verdict(None, f"the row's sources must be a list or an object, got {sources!r:.60}")
    return verify_citations(text, styles, least=least, sources=_as_texts(sources))


def _as_texts(sources: Sequence[Any] | Mapping[str, Any]) -> list[str]:
    """Sources as texts in order; of an object with numbers as keys each stands at its number."""
    if not isinstance(sources, Mapping):
        return [str(source) for source in sources]
    if not all(str(key).isdigit() for key in sources):
        return [f"{key} {value}" for key, value in sources.items()]
    numbered = {int(key): str(value) for key, value in sources.items()}
    return [numbered.get(number, "") for number in range(1, min(max(numbered, default=0), 10_000) + 1)]


def _leads(style: Style, cited: str, sources: Sequence[str]) -> bool:
    if style == "numbers":
        return 1 <= int(cited) <= len(sources) and bool(sources[int(cited) - 1])
    if style == "authors":
        name, year = cited.split()[0].rstrip(","), re.search(r"\d{4}", cited)
        return any(name in source and (year is None or year[0] in source) for source in sources)
    address = _bare(cited)
    return any(address == _bare(found[0]) for source in sources for found in _URL.finditer(source))


def _bare(url: str) -> str:
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", url).split("#")[0].rstrip("/").lower()
