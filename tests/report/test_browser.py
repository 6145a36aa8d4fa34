"""The pages in a real browser: nothing fetched or run, read and used by keys, in light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.browser import Tab, browser, found

from strop.report import write_comparison, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(found() is None, reason="no Chromium or Chrome is on the path"),
]

CONTRAST = """(() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const under = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    const passed = node.closest(".sr, .skip, script, style, [hidden], svg .in, .mark");
    if (!own || passed || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const ink = node.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(numbers(ink)), light(under(node.closest("svg") ? node.closest("svg") : node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([node.tagName, String(node.getAttribute("class")), node.textContent.slice(0, 30), ratio]);
  }
  return low;
})()"""
"""Texts whose contrast to what is under them is less than 4.5, the level AA of WCAG 2.2."""

FOCUS = """(() => {
  const node = document.activeElement;
  const style = getComputedStyle(node);
  return [node.tagName.toLowerCase(), node.getAttribute("class") || "", node.textContent.trim().slice(0, 40),
    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0];
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(finished_run: Path, make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    others = [make(folder / f"other-{seed}", seed=seed) for seed in range(8, 15)]
    return {
        "report": write_report(finished_run, folder / "report.html"),
        "comparison": write_comparison([finished_run, others[0]], folder / "comparison.html"),
        "eight": write_comparison([finished_run, *others], folder / "eight.html"),
    }


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_nothing_is_fetched_and_nothing_complains(tab: Tab, pages: dict[str, Path], name: str) -> None:
    tab.open(pages[name])
    tab.js("new Promise((done) => setTimeout(done, 200))")
    asked = [r["request"]["url"] for r in tab.said("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].resolve().as_uri()]
    assert tab.said("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled") == []


@pytest.mark.parametrize("name", ["report", "comparison", "eight"])
@pytest.mark.parametrize("width", [1440, 1000, 640, 360])
def test_the_page_never_scrolls_sideways_and_no_cell_covers_the_next(
    tab: Tab, pages: dict[str, Path], name: str, width: int
) -> None:
    tab.open(pages[name], width=width)
    assert tab.js("document.documentElement.scrollWidth") <= width
    wider = "[...document.querySelectorAll('th, td')].filter((cell) => cell.scrollWidth > cell.clientWidth + 1)"
    assert tab.js(f"{wider}.map((cell) => cell.textContent)") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_every_text_can_be_read(tab: Tab, pages: dict[str, Path], name: str, scheme: str) -> None:
    tab.open(pages[name], scheme=scheme)
    tab.js("document.querySelectorAll('details').forEach((d, i) => { d.open = i < 60 })")
    assert tab.js(CONTRAST) == []
    dark = tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(22, 20, 18)"
    assert dark == (scheme == "dark")


def test_the_first_key_offers_to_skip_and_the_next_ones_go_in_order(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    tab.press("Tab")
    assert tab.js(FOCUS)[1] == "skip" and tab.js("document.activeElement.getBoundingClientRect().left") >= 0
    tab.press("Enter")
    assert tab.js("document.activeElement.id") == "main"
    tab.js("window.last = document.activeElement")
    for _ in range(60):
        tab.press("Tab")
        tag, kind, text, visible = tab.js(FOCUS)
        assert visible, (tag, kind, text)
        moved = "last.compareDocumentPosition(document.activeElement) & Node.DOCUMENT_POSITION_FOLLOWING"
        assert tab.js(f"Boolean({moved})"), (tag, kind, text)
        tab.js("window.last = document.activeElement")


def test_the_search_is_one_key_away_and_narrows_what_is_shown(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    shown = "document.querySelectorAll('#compared > details:not([hidden])').length"
    assert tab.js(shown) == 50
    tab.press("/")
    assert tab.js("document.activeElement.type") == "search" and tab.js("document.activeElement.value") == ""
    for key in "orchard":
        tab.press(key)
    wanted = tab.js(
        "[...document.querySelectorAll('#compared > details')].filter((d) => /orchard/i.test(d.textContent)).length"
    )
    assert 0 < wanted < 50 and tab.js(shown) == wanted
    assert tab.js("document.querySelector('.find output').textContent") == f"{wanted} of 50"
    for key in "zzz":
        tab.press(key)
    assert tab.js(shown) == 0 and tab.js("!document.querySelector('.nothing').hidden")
    tab.press("Escape")
    assert tab.js(shown) == 50


def test_a_sample_opens_by_key(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    tab.js("document.querySelectorAll('#compared > details > summary')[3].focus()")
    tab.press("Enter")
    assert tab.js("document.querySelectorAll('#compared > details')[3].open")


def test_a_curve_is_read_by_the_arrow_keys(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    tab.js("document.querySelector('#curves svg[data-x]').focus()")
    said = "document.querySelector('#curves .readout').textContent"
    for key, step in (("ArrowRight", "0"), ("End", "599"), ("ArrowLeft", "597"), ("Home", "0")):
        tab.press(key)
        assert tab.js(said).startswith(f"step {step} "), (key, tab.js(said))  # of 600 steps, 399 are drawn
    assert "loss " in tab.js(said)
    tab.press("Tab")
    assert tab.js("document.querySelector('#curves .readout').hidden")


def test_a_csv_has_the_numbers_of_its_plot(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    text = tab.js(
        "decodeURIComponent(document.querySelector('#curves-1 a[download]').href.split(',').slice(1).join(','))"
    )
    header, first, *_ = text.splitlines()
    assert header == "step,loss,eval_loss" and first.startswith("0,2.")


def test_the_page_is_whole_without_script(tab: Tab, pages: dict[str, Path]) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages["report"])
        assert tab.js("document.querySelector('form.find').hidden") and tab.js("document.body.innerText.length") > 5000
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    assert tab.pdf().startswith(b"%PDF-")
    tab.show(media="print", scheme="dark")
    assert tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.js("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_a_script_in_a_completion_stays_text(tab: Tab, run_dir: Path, put: Any) -> None:
    evil = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><svg onload='window.ran = 1'>"
    answer = {"content": evil, "score": 0.0, "rewards": {evil: 0.0}, "reasons": {evil: evil}}
    put(run_dir / "stages" / "eval-grpo" / "samples.jsonl", [{"prompt": evil, "completions": [answer]}])
    tab.open(write_report(run_dir))
    tab.js("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert tab.js("window.ran === undefined && document.querySelectorAll('img, script').length === 1")
    assert evil in tab.js("document.getElementById('worst').nextElementSibling.nextElementSibling.textContent")
