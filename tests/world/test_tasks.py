"""Every question is solved again here, from its text alone, by other means than the generator's."""

import re
from random import Random

import pytest

from strop.world.tasks import KINDS, Kind, Split, Task, add, chain, make_task, sort, split_of, word

QUESTIONS = {
    "chain": re.compile(r"Last digit of ([0-9](?:\+[0-9]){3,5})\?"),
    "add": re.compile(r"Compute ([1-9][0-9])\+([1-9][0-9])\."),
    "word": re.compile(r"[A-Z][a-z]+ has ([2-9]) ([a-z]+), (.+)\. How many ([a-z]+) now\?"),
    "sort": re.compile(r"Sort ([1-9]{5})\."),
}


def draw(kind: Kind, n: int = 300, split: Split = "train", seed: int = 0) -> list[Task]:
    return [make_task(Random(f"{kind}/{seed}/{i}"), kind, split) for i in range(n)]


def solve(kind: str, question: str) -> int | str:
    found = QUESTIONS[kind].fullmatch(question)
    assert found, question
    if kind == "chain":
        return sum(map(int, found[1].split("+"))) % 10
    if kind == "add":
        return int(found[1]) + int(found[2])
    if kind == "sort":
        return "".join(sorted(found[1]))
    assert found[2] == found[4]
    gain, loss = re.search(r"gets (\d) more", found[3]), re.search(r"loses (\d)", found[3])
    assert gain and loss
    return int(found[1]) + int(gain[1]) - int(loss[1])


@pytest.mark.parametrize("kind", KINDS)
def test_answer_is_what_the_question_text_says(kind):
    for task in draw(kind):
        assert task.answer == str(solve(kind, task.question)), task


@pytest.mark.parametrize("kind", ["chain", "add", "word"])
def test_every_step_is_true_arithmetic(kind):
    for task in draw(kind):
        for step in task.steps:
            left, right = step.split("=")
            numbers = [int(x) for x in re.findall(r"[+-]?\d+", left)]
            assert int(right) == (sum(numbers) % 10 if kind == "chain" else sum(numbers)), task
            assert len(right) == (1 if kind == "chain" else 2), f"width of {step}"


@pytest.mark.parametrize("kind", ["chain", "word"])
def test_steps_hand_on_their_result_and_end_in_the_answer(kind):
    for task in draw(kind):
        for before, after in zip(task.steps, task.steps[1:], strict=False):
            assert re.match(r"\d+", after)[0] == before.split("=")[1]
        assert int(task.steps[-1].split("=")[1]) == int(task.answer)


def test_add_steps_carry_and_make_up_the_answer():
    for task in draw("add"):
        ones, tens = task.steps
        assert tens.split("=")[0].endswith("+" + ones.split("=")[1][0])
        assert int(tens.split("=")[1] + ones[-1]) == int(task.answer)


def test_word_stories_never_owe_anything_and_come_in_both_orders():
    tasks = draw("word")
    assert all(int(s.split("=")[1]) >= 0 for t in tasks for s in t.steps)
    share = sum(", gets" in t.question for t in tasks) / len(tasks)
    assert 0.4 < share < 0.6


def test_the_four_examples_of_the_table():
    assert chain((8, 8, 6, 0, 3)) == Task(
        "Last digit of 8+8+6+0+3?", ("8+8=6", "6+6=2", "2+0=2", "2+3=5"), "5", "chain"
    )
    assert add(39, 75) == Task("Compute 39+75.", ("9+5=14", "3+7+1=11"), "114", "add")
    mia = word("Mia", "books", start=8, gain=1, loss=2, gain_first=True)
    assert mia.question == "Mia has 8 books, gets 1 more and loses 2. How many books now?"
    assert (mia.steps, mia.answer) == (("8+1=09", "09-2=07"), "7")
    assert word("Mia", "books", start=8, gain=1, loss=2, gain_first=False).steps == ("8-2=06", "06+1=07")
    assert sort((9, 7, 4, 6, 2)) == Task("Sort 97462.", (), "24679", "sort")


def test_splits_are_disjoint_a_tenth_and_never_move():
    train = {t.question for k in KINDS for t in draw(k, split="train")}
    test = {t.question for k in KINDS for t in draw(k, split="test", seed=1)}
    assert not train & test
    shares = [split_of(f"Compute {a}+{b}.") == "test" for a in range(10, 100) for b in range(10, 100)]
    assert 0.09 < sum(shares) / len(shares) < 0.11
    # Frozen: a change here moves test questions of old runs into the training data of new ones.
    assert [a for a in range(10, 100) if split_of(f"Compute {a}+75.") == "test"] == [17, 26, 49, 72, 77, 90]
