from strop.report.records import Answer, Sampled
from strop.report.samples import compare, num_unscorable, worst
from strop.types import Message


def answer(text, score):
    return Answer(text, score, {}, {}, "stop")


def sampled(prompt, *scores):
    return Sampled(prompt, tuple(answer(f"{prompt} {s}", s) for s in scores))


def test_prompts_are_matched_by_text_not_by_place():
    found = compare({"a": [sampled("p", 0.0), sampled("q", 1.0)], "b": [sampled("q", 0.5), sampled("p", 1.0)]}, 50)
    assert [(c.prompt, [cell.answer.score for cell in c.cells], c.trend) for c in found] == [
        ("p", [0.0, 1.0], "improved"),
        ("q", [1.0, 0.5], "worsened"),
    ]


def test_prompts_seen_by_most_stages_come_first_and_gaps_are_told():
    found = compare({"a": [sampled("only a", 0.0), sampled("both", 1.0)], "b": [sampled("both", 1.0)]}, 50)
    assert [c.prompt for c in found] == ["both", "only a"]
    assert found[1].cells[1] is None and found[1].trend == "unknown" and found[0].trend == "same"


def test_turns_are_told_apart_from_a_text_with_the_same_words():
    turns = (Message("system", "x"), Message("user", "p"))
    found = compare({"a": [Sampled(turns, (answer("1", 1.0),))], "b": [sampled("p", 1.0)]}, 50)
    assert len(found) == 2


def test_many_answers_show_the_first_and_their_mean_without_unscorable_ones():
    (only,) = compare({"a": [sampled("p", 0.0, 1.0, None, 0.5)]}, 50)
    cell = only.cells[0]
    assert (cell.answer.score, cell.num_answers, cell.mean) == (0.0, 4, 0.5)


def test_the_worst_are_ranked_by_score_and_unscorable_ones_counted():
    groups = [sampled(f"p{i}", float(i % 7), None) for i in range(30)]
    found = worst(groups, 10)
    assert [r.answer.score for r in found] == [0.0] * 5 + [1.0] * 5
    assert [r.prompt for r in found[:5]] == ["p0", "p7", "p14", "p21", "p28"]
    assert num_unscorable(groups) == 30
