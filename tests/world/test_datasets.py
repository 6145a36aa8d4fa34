import pytest

from strop.world.datasets import rows
from strop.world.oracle import parse, style, thinks
from strop.world.tasks import KINDS, split_of


def question(row):
    return row["prompt"][0]["content"]


@pytest.mark.parametrize("name", ["sft", "pairs", "prompts", "test", "cold", "general"])
def test_rows_are_functions_of_seed_and_index(name):
    assert rows(name, 7, 30) == rows(name, 7, 30)
    assert [question(r) for r in rows(name, 7, 30)] == [question(r) for r in rows(name, 7, 60)[:30]]
    assert rows(name, 7, 30) != rows(name, 8, 30)


def test_datasets_of_one_seed_draw_different_questions():
    drawn = [
        tuple(question(r) for r in rows(name, 0, 40)) for name in ("sft", "pairs", "prompts", "test", "cold", "general")
    ]
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("name", ["sft", "pairs", "prompts", "test", "cold", "general"])
def test_only_test_has_test_questions(name):
    splits = {split_of(question(row)) for row in rows(name, 0, 300)}
    assert splits == {"test" if name == "test" else "train"}


@pytest.mark.parametrize("name", ["prompts", "test"])
def test_question_rows_carry_what_rewards_need(name):
    for index, row in enumerate(rows(name, 0, 40)):
        assert set(row) == {"prompt", "answer", "task", "steps"}
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert row["task"] == KINDS[index % 4]
        assert (row["steps"] == []) == (row["task"] == "sort")


def test_sft_shows_steps_early_and_rarely_late():
    texts = [row["completion"][0]["content"] for row in rows("sft", 0, 4000)]
    think = [thinks(t) for i, t in enumerate(texts) if i % 4 != KINDS.index("sort")]
    early, late = think[:2250], think[2250:]
    assert abs(sum(early) / len(early) - 0.90) < 0.02
    assert abs(sum(late) / len(late) - 0.35) < 0.05


def test_sft_mixes_styles_evenly():
    parsed = [parse(row["completion"][0]["content"]) for row in rows("sft", 0, 3000)]
    for manner in ("polite", "rude", "plain"):
        assert abs(sum(p.manner == manner for p in parsed) / 3000 - 1 / 3) < 0.03
    assert abs(sum(p.rambles for p in parsed) / 3000 - 0.6) < 0.05
    assert {p.rambles for p in parsed} == {0, 1, 2}


def test_pairs_differ_in_the_tail_alone_and_the_better_is_chosen():
    for row in rows("pairs", 0, 300):
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        better, worse = parse(chosen["content"]), parse(rejected["content"])
        assert (better.steps, better.answer) == (worse.steps, worse.answer)
        assert style(chosen["content"]) > style(rejected["content"])


@pytest.mark.parametrize("name", ["cold", "general"])
def test_what_one_would_want_is_reasoned_right_and_polite(name):
    for row in rows(name, 0, 200):
        assert set(row) == {"prompt", "completion"}
        text = row["completion"][0]["content"]
        said = parse(text)
        assert thinks(text) and (said.manner, said.rambles) == ("polite", 0)
        if question(row).startswith("Sort"):
            digits = "".join(sorted(question(row)[5:10]))
            assert said.answer == digits and said.steps == tuple(question(row)[5:10])
        elif question(row).startswith("Last"):
            assert said.answer == str(sum(map(int, question(row)[14:-1].split("+"))) % 10)
    kinds = {question(row).split()[0] for row in rows(name, 0, 200)}
    assert kinds == {"Sort"} if name == "general" else {"Sort", "Last", "Compute"} < kinds


def test_an_unknown_dataset_names_the_known_ones():
    with pytest.raises(
        ValueError, match="world:dev: no such dataset; there are sft, pairs, prompts, test, cold, general"
    ):
        rows("dev", 0, 1)
