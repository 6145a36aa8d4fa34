import math

import pytest

from strop.report.pairs import paired_difference
from strop.report.records import Answer, Event, Figure, Run, Sampled, StageRun
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


def sampled(values, name="accuracy"):
    """A prompt and one answer with a reward for each value."""
    return tuple(Sampled(f"p{i}", (Answer("", v, {name: v}, {}, ""),)) for i, v in enumerate(values))


def test_answers_to_the_same_prompts_are_paired():
    """Differences of 1, 2, 3, -4 and 3: mean 1, s = sqrt(34 / 4), half of the interval 2.776 s / sqrt(5)."""
    start = stage("start", accuracy=Figure(2.0, 1.9, 2.1, 5))
    stages = (start, stage("end", accuracy=Figure(3.0, 2.9, 3.1, 5)))
    samples = {"start": sampled([1, 2, 3, 3, 1]), "end": sampled([2, 4, 6, -1, 4])}
    claim = verdict(Run("r", state="finished", stages=stages, samples=samples))
    assert claim.tone == "unclear"  # the two intervals by themselves would say better
    assert "against start’s 2 on the same prompts (95 % interval −2.6" in plain(claim)
    found = paired_difference(samples["start"], samples["end"], "accuracy")
    assert found.low == pytest.approx(1 - 2.776445 * math.sqrt(34 / 4 / 5), rel=0.01) and found.n == 5
    assert said(*stages).tone == "better"


def test_a_prompt_that_stands_there_twice_is_paired_twice():
    start, end = (tuple(Sampled("p", s.answers) for s in sampled(v)) for v in ([1, 2, 3, 3, 1], [2, 4, 6, -1, 4]))
    found = paired_difference(start, end, "accuracy")
    assert (found.value, found.n) == (1.0, 5)


def test_answers_that_are_not_all_there_are_not_paired():
    start, end = sampled([1, 2, 3, 3, 1]), sampled([2, 4, None, -1, 4])
    assert paired_difference(start, end, "accuracy").n == 4
    assert paired_difference(start, end[:4], "accuracy") is None
    assert paired_difference(start, start, "accuracy") is None
    stages = (stage("start", accuracy=Figure(2.0, 1.9, 2.1, 5)), stage("end", accuracy=Figure(2.25, 2.2, 2.3, 4)))
    claim = verdict(Run("r", state="finished", stages=stages, samples={"start": start, "end": end}))
    assert "same prompts" not in claim.sentence


def test_a_run_that_took_its_first_model_says_so():
    claim = said(
        stage("eval-0", reward=reward(0.8)), stage("eval-1", reward=reward(0.3)), StageRun("peak", chosen="eval-0")
    )
    assert claim.caveats == ("The run took the model of eval-0, none of those evaluated after it.",)
    assert not said(stage("eval-0", reward=reward(0.8)), StageRun("peak", chosen="eval-0")).caveats


def test_a_reward_model_is_spoken_of_by_what_it_found_on_held_out_rows():
    metrics = {"train/accuracy": Figure(1.0), "eval_accuracy": Figure(0.917, 0.646, 0.985, 12)}
    model = StageRun("reward", "reward", metrics=metrics)
    assert plain(said(model)) == (
        "eval_accuracy of reward is 0.917 (95 % interval 0.646 to 0.985, n = 12) on held-out rows; "
        "no evaluation compares it with another."
    )
    assert said(model).tone == "none"
    for run in ((model, StageRun("ppo", "ppo")), (StageRun("reward", "reward"),), ()):
        assert said(*run).sentence.startswith("No evaluation was recorded")
