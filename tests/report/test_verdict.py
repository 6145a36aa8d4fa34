import math

import pytest

from strop.report.records import Event, Figure, Run, StageRun
from strop.report.verdict import alerts, difference, headline, state_sentence, tone_of, verdict


def stage(name, baseline="", **metrics):
    named = {k.replace("delta_", "delta/"): v for k, v in metrics.items()}
    inputs = {"baseline": baseline} if baseline else {}
    return StageRun(name, "evaluate", "finished", metrics=named, inputs=inputs)


def said(*stages, state="finished"):
    return verdict(Run("r", state=state, stages=stages))


def plain(claim):
    return claim.sentence.replace("\u00a0", " ")


def reward(value, half=0.05, n=200):
    return Figure(value, value - half, value + half, n)


def test_a_paired_difference_to_the_start_is_preferred_and_quoted_with_n_and_interval():
    last = stage("end", "@start", reward=Figure(0.72, 0.66, 0.78, 200), delta_reward=Figure(0.41, 0.35, 0.47, 200))
    claim = said(stage("start", reward=Figure(0.31, 0.25, 0.37, 200)), last)
    assert claim.tone == "better" and claim.caveats == ()
    assert plain(claim) == (
        "Better: reward in end is 0.720, 0.410 above start on the same prompts (95 % interval 0.350 to 0.470, n = 200)."
    )


def test_the_way_from_the_start_leads_and_the_last_step_stands_beside_it():
    last = stage("end", "@middle", reward=reward(0.7), delta_reward=reward(0.1))
    claim = said(stage("start", reward=reward(0.3)), stage("middle", reward=reward(0.6)), last)
    assert plain(claim).startswith("Better: reward in end is 0.700, 0.400 above start’s 0.300 (95 % interval 0.329")
    assert claim.caveats[0].startswith("Better: reward in end is 0.700, 0.100 above middle on the same prompts")


def test_a_last_step_that_lost_leads_whatever_was_won_before():
    last = stage("end", "@middle", reward=reward(0.5), delta_reward=reward(-0.1))
    claim = said(stage("start", reward=reward(0.3)), stage("middle", reward=reward(0.6)), last)
    assert claim.tone == "worse" and "0.100 below middle" in claim.sentence
    assert claim.caveats[0].startswith("Better: reward in end is 0.500, 0.200 above start’s")


def test_the_model_that_the_run_took_is_the_one_spoken_of():
    stages = [stage(name, reward=reward(v)) for name, v in (("eval-0", 0.3), ("eval-1", 0.8), ("eval-2", 0.6))]
    claim = said(*stages, StageRun("peak", "best", chosen="eval-1"))
    assert plain(claim).startswith("Better: reward in eval-1 is 0.800, 0.500 above eval-0’s 0.300")


def test_evaluations_of_other_data_are_not_compared():
    first = StageRun("a", "evaluate", metrics={"accuracy": reward(0.3)}, inputs={"data": "pairs.jsonl"})
    last = StageRun("b", "evaluate", metrics={"accuracy": reward(0.9)}, inputs={"data": "test.jsonl"})
    assert "there is nothing before" in said(first, last).sentence


def test_the_rewards_that_answers_were_weighed_by_are_spoken_of_first():
    stages = [
        StageRun(n, "evaluate", metrics={"accuracy": reward(9.0), "letters": reward(v)}, rewards=("letters",))
        for n, v in (("a", 1.0), ("b", 2.0))
    ]
    assert "letters in b is 2" in said(*stages).sentence


def test_an_interval_with_zero_in_it_decides_nothing():
    claim = said(stage("end", "base", reward=Figure(0.5), delta_reward=Figure(0.02, -0.01, 0.05, 90)))
    assert claim.tone == "unclear" and plain(claim).startswith("No difference shown")
    assert "+0.0200 against base on the same prompts (95 % interval −0.0100 to +0.0500, n = 90)" in plain(claim)


def test_a_loss_is_said_as_plainly():
    claim = said(stage("end", "base", delta_accuracy=Figure(-0.1, -0.15, -0.05, 90)))
    assert claim.tone == "worse"
    assert "0.100 below base on the same prompts (95 % interval 0.0500 to 0.150, n = 90)" in plain(claim)


def test_without_pairs_two_stages_are_compared_by_their_intervals():
    claim = said(stage("a", reward=Figure(0.3, 0.2, 0.4, 50)), stage("b", reward=Figure(0.9, 0.8, 1.0, 60)))
    assert claim.tone == "better" and "0.600 above a’s 0.300 (95 % interval 0.459 to 0.741, n = 50)" in plain(claim)


def test_difference_recovers_the_wald_interval_of_symmetric_ones():
    found = difference(Figure(1.0, 0.7, 1.3, 10), Figure(2.0, 1.6, 2.4, 20))
    assert (found.value, found.n) == (1.0, 10)
    assert (found.low, found.high) == pytest.approx((0.5, 1.5))
    assert difference(Figure(1.0), Figure(2.0, 1.0, 3.0, 5)) == Figure(1.0)


def test_nothing_is_claimed_without_evaluation_interval_or_comparison():
    assert said().tone == "none"
    assert "nothing is claimed about quality" in said(StageRun("sft", "sft", metrics={"reward": Figure(1.0)})).sentence
    assert "nothing before" in said(stage("a", reward=Figure(0.3, 0.2, 0.4, 50))).sentence
    assert said(stage("a", reward=Figure(0.3)), stage("b", reward=Figure(0.9))).tone == "none"
    assert (
        said(stage("a", length=Figure(30.0, 29.0, 31.0, 9)), stage("b", length=Figure(9.0, 8.0, 10.0, 9))).tone
        == "none"
    )
    assert said(stage("a", reward=Figure(math.nan)), stage("b", reward=Figure(0.9, 0.8, 1.0, 9))).tone == "none"


def test_an_unfinished_run_qualifies_its_verdict():
    stages = (stage("a", reward=Figure(0.3, 0.2, 0.4, 50)), stage("b", reward=Figure(0.9, 0.8, 1.0, 60)))
    assert said(*stages).caveats == ()
    assert "did not finish" in said(*stages, state="failed").caveats[0]


def test_the_total_reward_comes_before_its_parts_and_spreads_are_no_headline():
    figures = {name: Figure(0.5) for name in ("rewards/exact/std", "rewards/exact/mean", "length", "reward")}
    assert headline(figures) == "reward"
    assert headline({k: v for k, v in figures.items() if k != "reward"}) == "rewards/exact/mean"
    assert headline({"length": Figure(1.0), "rewards/exact/std": Figure(1.0)}) == ""


def test_zero_touching_the_interval_is_no_difference():
    assert [tone_of(Figure(0.1, low, high)) for low, high in ((0.0, 0.2), (0.01, 0.2), (-0.2, -0.1), (None, 1.0))] == [
        "unclear", "better", "worse", "none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "state, words",
    [
        ("finished", "Finished after 2 min 05 s."),
        ("failed", "Failed in stage dpo at step 140 of 300 after 2 min 05 s."),
        (
            "interrupted",
            "Interrupted in stage dpo at step 140 of 300 after 2 min 05 s; run its directory again to resume.",
        ),
        ("running", "Marked as running in stage dpo at step 140 of 300"),
        ("unknown", "not recorded"),
    ],
)
def test_every_state_has_its_sentence(state, words):
    assert words in state_sentence(Run("r", state=state, stage="dpo", step=140, steps=300, seconds=125.0))


def test_alerts_put_alarms_before_skipped_steps_and_leave_the_final_error_out():
    events = tuple(Event(kind, kind, None, "", None, "") for kind in ("nonfinite", "start", "alarm", "error"))
    assert [e.kind for e in alerts(Run("r", events=events))] == ["error", "alarm", "nonfinite"]
    assert [e.kind for e in alerts(Run("r", events=events, error="error"))] == ["alarm", "nonfinite"]
