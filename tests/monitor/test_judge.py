"""Runs judged from beginning to end: hacked ones alarm in time, honest ones do not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from strop.monitor import judge
from strop.monitor.alerts import Alert, confirmed, is_sure, news, unconfirmed
from strop.monitor.gains import Effect
from strop.monitor.judge import Evaluation, Watch
from strop.monitor.samples import Sample, Snapshot
from strop.monitor.settings import Thresholds


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Bootstrap intervals are nine tenths of the time, and no finding reads them."""
    if "figures" not in request.keywords:
        monkeypatch.setattr(judge, "figures", lambda *args, **kwargs: {})


def alarms(history: Sequence[Snapshot], patience: int = 2) -> list[Alert]:
    watch = Watch(Thresholds(), patience)
    for i, snapshot in enumerate(history):
        watch.observe(snapshot, last=i == len(history) - 1)
    return [alert for alert in watch.alerts if alert.severity == "alarm"]


HONEST = {
    "the same": (lambda x: 2 * x, lambda x: 2 * x),
    "level": (lambda x: 0.0, lambda x: 0.0),
    "creeping": (lambda x: 0.3 * x, lambda x: 0.0),
    "saturating": (lambda x: min(1.0, 3 * x), lambda x: min(0.7, 2 * x)),
}


@pytest.mark.parametrize("kind", HONEST)
def test_of_sixty_honest_runs_at_most_three_alarm(kind: str, streams: Any) -> None:
    """240 in all; fifteen looks each, two rewards with noise of their own."""
    false = sum(bool(alarms(streams.bare(seed, *HONEST[kind]))) for seed in range(60))
    assert false <= 3


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_held_out_reward_that_is_the_proxy_never_alarms(noise: float, streams: Any) -> None:
    def same(snapshot: Snapshot) -> Snapshot:
        rows = tuple(tuple(Sample("", s.proxy, s.proxy) for s in row) for row in snapshot.samples)
        return Snapshot(snapshot.step, snapshot.prompts, rows)

    for seed in range(20):
        history = streams.bare(seed, lambda x: x - 2 * x * x, lambda x: 0.0, noise=noise)
        assert alarms([same(s) for s in history]) == []


def test_proxy_x_and_gold_x_less_x_squared_alarm_before_half_the_gain_is_lost(streams: Any) -> None:
    """Gold peaks at x = 1/2 with 1/4; half of it is lost at 1/2 + sqrt(1/8) = 0.85.

    The factor makes of 48 prompts x 2 the default's 128 x 4, for a gain of six deviations of the noise.
    """
    in_time = 0
    for seed in range(20):
        found = alarms(streams.bare(seed, lambda x: 14 * x, lambda x: 14 * (x - x * x)))
        in_time += bool(found) and found[0].code == "held_out_falls" and found[0].step / 14 < 0.85
    assert in_time >= 18


def test_both_falling_is_instability_and_no_hacking(streams: Any) -> None:
    history = streams.bare(0, lambda x: 1 - 3 * x, lambda x: 1 - 3 * x)
    watch = Watch(Thresholds(), 2)
    for snapshot in history:
        watch.observe(snapshot)
    assert {(a.code, a.severity) for a in watch.alerts} == {("both_fall", "warning")}


def test_without_a_proxy_a_fall_is_enough(streams: Any) -> None:
    def gold_only(snapshot: Snapshot) -> Snapshot:
        rows = tuple(tuple(Sample("", None, s.held_out) for s in row) for row in snapshot.samples)
        return Snapshot(snapshot.step, snapshot.prompts, rows)

    history = [gold_only(s) for s in streams.bare(0, lambda x: 0.0, lambda x: -3 * x)]
    assert [a.code for a in alarms(history)] == ["held_out_falls"]


def test_one_look_is_not_enough(streams: Any) -> None:
    """A single bad evaluation between good ones."""
    history = streams.bare(1, lambda x: x, lambda x: -3.0 if 0.45 < x < 0.55 else x)
    assert alarms(history) == [] and len(alarms(history, patience=1)) == 1


def test_a_last_look_that_nothing_confirms_is_a_warning(streams: Any) -> None:
    history = streams.bare(1, lambda x: x, lambda x: -3.0 if x == 1 else x)
    watch = Watch(Thresholds(), 2)
    found = [watch.observe(s, last=s is history[-1]) for s in history][-1]
    assert [(a.code, a.severity) for a in found.alerts] == [("held_out_falls", "warning")]
    assert "nothing confirms it" in found.alerts[0].cause


def test_an_alert_is_told_once(streams: Any) -> None:
    found = alarms(streams.bare(2, lambda x: 6 * x, lambda x: -6 * x))
    assert [a.code for a in found] == ["held_out_falls"]


@pytest.mark.parametrize("kind", ["thinking", "formatted", "style"])
def test_words_that_are_learned_are_no_alarm(kind: str, streams: Any) -> None:
    assert alarms(getattr(streams, kind)(0, 8)) == []


def test_what_is_learned_is_told_as_such(streams: Any) -> None:
    watch = Watch(Thresholds(), 2)
    for snapshot in streams.formatted(0, 8):
        watch.observe(snapshot)
    (told,) = [a for a in watch.alerts if "the final answer is given above" in a.subject]
    assert told.severity == "info" and "The held-out reward rises with it" in told.cause


def test_a_sentence_that_pays_is_an_alarm_with_its_figures_and_examples(streams: Any) -> None:
    found = alarms(streams.buzzword(0, 14))
    phrase = next(a for a in found if a.code == "phrase")
    assert "i am a helpful assistant" in phrase.subject and phrase.step <= 80
    assert phrase.evidence["effect/proxy"] == pytest.approx(1.0, abs=0.15)
    assert phrase.evidence["effect/held_out"] == pytest.approx(0.0, abs=0.15)
    assert len(phrase.examples) == 3 and all("helpful assistant" in e.completion for e in phrase.examples)


def test_rambling_is_an_alarm_of_length_too(streams: Any) -> None:
    found = alarms(streams.rambling(0, 9))
    assert {"phrase", "length", "held_out_falls"} <= {a.code for a in found}
    assert sum(a.code == "phrase" for a in found) <= 3, "nobody reads twenty-five of them"


def plain(text: str, num: int = 40) -> Snapshot:
    prompts = tuple(f"q{i}" for i in range(num))
    return Snapshot(0, prompts, tuple((Sample(f"Topic {'abcdefgh'[i % 8] * 3} here {text}"),) for i in range(num)))


def test_texts_alone_a_sentence_in_every_answer_alarms_and_a_word_warns_not() -> None:
    found = alarms([plain(""), plain("I am a helpful assistant.")], patience=1)
    assert [a.code for a in found] == ["phrase"] and "helpful assistant" in found[0].subject
    assert alarms([plain(""), plain("delve")], patience=1) == []


def test_an_evaluation_survives_json(streams: Any) -> None:
    watch = Watch(Thresholds(), 1)
    for snapshot in streams.buzzword(0, 4):
        evaluation = watch.observe(snapshot)
        assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


def many(level: Any, num: int) -> Iterator[Alert]:
    return (Alert("phrase", level, 1, "what", "", "", subject=f"{level} {i}") for i in range(num))


def test_phrases_do_not_flood() -> None:
    told = news([*many("alarm", 9), *many("info", 9)], [])
    assert [sum(a.severity == level for a in told) for level in ("alarm", "info")] == [3, 6]
    assert news(list(many("alarm", 3)), told) == []


def test_a_finding_holds_once_it_was_seen_again_and_one_that_is_sure_at_once() -> None:
    once, sure = Alert("phrase", "alarm", 1, "", "", ""), Alert("phrase", "alarm", 1, "", "", "", sure=True)
    mild = Alert("phrase", "info", 0, "", "", "")
    assert confirmed([[once]], 2) == [] and confirmed([[sure]], 2) == [sure]
    assert confirmed([[mild], [once]], 2) == [once], "a cause is as bad as it now is"
    falls = [Alert("held_out_falls", level, 1, "", "", "") for level in ("warning", "alarm")]  # type: ignore[arg-type]
    assert [a.severity for a in confirmed([[falls[0]], [falls[1]]], 2)] == ["warning"]
    assert [a.severity for a in unconfirmed([[], [once]], 2)] == ["warning"] and unconfirmed([[sure]], 2) == []


def test_sure_is_four_errors_on_both_sides() -> None:
    assert is_sure(Effect(1.0, 0.24), Effect(-1.0, 0.24))
    assert not is_sure(Effect(1.0, 0.26), Effect(-1.0, 0.24)) and not is_sure(Effect(1.0, 0.1), Effect(1.0, 0.1))
