"""Citations found, counted, and checked by the row's sources."""

from __future__ import annotations

import time

import pytest

from strop.rewards import Citations, verify_citations
from strop.rewards.citations import citations
from strop.types import Completion, Group


@pytest.mark.parametrize(
    "text, found",
    [
        ("It is so [1].", [("numbers", "1")]),
        ("It is so [1, 3-5].", [("numbers", n) for n in "1345"]),
        ("It is so [^2].", [("numbers", "2")]),
        ("It is so (Smith, 2020).", [("authors", "Smith, 2020")]),
        ("It is so (see Smith & Lee, 2020, p. 5).", [("authors", "Smith & Lee, 2020")]),
        ("As Smith et al. (2020) say.", [("authors", "Smith et al. (2020)")]),
        ("See [the page](https://a.org/x).", [("links", "https://a.org/x")]),
        ("See https://a.org/x.", [("urls", "https://a.org/x")]),
        ("No citation (in 2020), a[0], [x], [text](local).", [("numbers", "0")]),
        ("`a[1]` and ```\nb[2] # https://a.org\n```", []),
        ("<think>[1]</think>Nothing.", []),
        ("[1]: https://a.org/x", [("urls", "https://a.org/x")]),
    ],
)
def test_what_is_found(text: str, found: list[tuple[str, str]]) -> None:
    assert list(citations(text)) == found


def test_different_ones_are_counted() -> None:
    assert verify_citations("So [1], so [1].", least=2).score == 0.0
    verdict = verify_citations("So [1], so [2].", least=2)
    assert verdict.score == 1.0 and verdict.extracted == "1, 2"
    assert verify_citations("Nothing.").reason == "0 different citations, at least 1 wanted"


def test_only_the_styles_asked_for_count() -> None:
    assert verify_citations("So [1].", ["urls"]).score == 0.0
    assert verify_citations("So https://a.org/x.", ["urls"]).score == 1.0


SOURCES = ["Smith, J. (2020). On things. https://www.a.org/x/", {"title": "B", "url": "http://b.org"}]


@pytest.mark.parametrize(
    "text, score",
    [
        ("So [1] and [2].", 1.0),
        ("So [1] and [3].", 0.0),
        ("So [0].", 0.0),
        ("So (Smith, 2020).", 1.0),
        ("So (Smith, 2021).", 0.0),
        ("So (Lee, 2020).", 0.0),
        ("So [here](https://a.org/x).", 1.0),
        ("So http://b.org/", 1.0),
        ("So https://c.org/x", 0.0),
        ("So it is.", 0.0),
    ],
)
def test_citations_lead_to_the_sources(text: str, score: float) -> None:
    group = Group("p", (Completion(text),), {"sources": SOURCES})
    assert Citations(sources="sources")([group])[0][0].score == score


def test_sources_by_number() -> None:
    reward = Citations(sources="sources")
    group = Group("p", (Completion("So [7]."), Completion("So [2].")), {"sources": {"1": "A", "7": "B"}})
    assert [v.score for v in reward([group])[0]] == [1.0, 0.0]
    assert reward([Group("p", (Completion("[1]"),), {"sources": None})])[0][0].score is None
    with pytest.raises(ValueError, match="no row has a column 'sources'"):
        reward([Group("p", (Completion("[1]"),), {})])


def test_settings() -> None:
    for wrong in ({"styles": ()}, {"least": 0}):
        with pytest.raises(ValueError, match="citations"):
            Citations(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("piece", ["[", "[1,", "(A", "https://", "[a](", "A and ", "`", "[1-9999]", "Aa-"])
def test_long_texts_are_cheap(piece: str) -> None:
    began = time.process_time()
    verify_citations(piece * 20_000)
    assert time.process_time() - began < 2
