"""Each row shape as a group, what is detected and said, and what becomes of rows that are no good."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from strop.data.formats import Dataset, load_dataset
from strop.types import Completion, Group, Message, group_to_json

U, A, B = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}
S = {"role": "system", "content": "s"}
V = {"role": "user", "content": "v"}
MU, MA, MB, MS, MV = (Message(m["role"], m["content"]) for m in (U, A, B, S, V))


@pytest.fixture
def load(tmp_path):
    def load(*rows, **options) -> Dataset:
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return load_dataset(str(path), **options)

    return load


def answers(group: Group) -> list:
    return [c.content for c in group.completions]


SHAPES = [
    # row, kind, shape, prompt, completions
    ({"text": "t"}, "language_modeling", "text", "", ["t"]),
    ({"messages": [S, U, A, V, B]}, "language_modeling", "messages", (MS, MU), [(MA, MV, MB)]),
    ({"messages": [A, U, B]}, "language_modeling", "messages", (), [(MA, MU, MB)]),
    ({"prompt": "p"}, "prompt_only", "plain prompt", "p", []),
    ({"prompt": [S, U]}, "prompt_only", "conversational prompt", (MS, MU), []),
    ({"question": "q"}, "prompt_only", "question", (Message("user", "q"),), []),
    ({"prompt": "p", "completion": "c"}, "prompt_completion", "plain prompt and completion", "p", ["c"]),
    ({"prompt": [U], "completion": [A]}, "prompt_completion", "conversational prompt and completion", (MU,), [(MA,)]),
    ({"prompt": "u", "completion": [A]}, "prompt_completion", "conversational prompt and completion", (MU,), [(MA,)]),
    ({"prompt": [U], "completion": "a"}, "prompt_completion", "conversational prompt and completion", (MU,), [(MA,)]),
    ({"prompt": "p", "chosen": "c", "rejected": "r"}, "preference", "plain preference", "p", ["c", "r"]),
    ({"prompt": [U], "chosen": [A], "rejected": [B]}, "preference", "conversational preference", (MU,), [(MA,), (MB,)]),
    (
        {"chosen": [U, A], "rejected": [U, B]},
        "preference",
        "conversational preference with implicit prompt",
        (MU,),
        [(MA,), (MB,)],
    ),
    (
        {"chosen": [U, A, V, A], "rejected": [U, A, V, B]},
        "preference",
        "conversational preference with implicit prompt",
        (MU, MA, MV),
        [(MA,), (MB,)],
    ),
    (
        {"chosen": "the sky is blue", "rejected": "the sky is black"},
        "preference",
        "plain preference with implicit prompt",
        "the sky is",
        [" blue", " black"],
    ),
    (
        {"chosen": "\n\nHuman: u\n\nAssistant: a", "rejected": "\n\nHuman: u\n\nAssistant: b"},
        "preference",
        "HH dialogue",
        (MU,),
        [(MA,), (MB,)],
    ),
    (
        {"prompt": "\n\nHuman: u\n\nAssistant:", "chosen": " a", "rejected": "b"},
        "preference",
        "HH dialogue",
        (MU,),
        [(Message("assistant", " a"),), (MB,)],
    ),
    # The prompt repeated at the head of both sides, under a system turn: UltraFeedback's habit and its relatives.
    (
        {"prompt": "u", "chosen": [U, A], "rejected": [U, B]},
        "preference",
        "conversational preference",
        (MU,),
        [(MA,), (MB,)],
    ),
    (
        {"prompt": "u", "chosen": [S, U, A], "rejected": [S, U, B]},
        "preference",
        "conversational preference",
        (MS, MU),
        [(MA,), (MB,)],
    ),
    ({"prompt": "p", "completion": "c", "label": True}, "unpaired_preference", "plain unpaired", "p", ["c"]),
    ({"prompt": [U], "completion": [A], "label": 0}, "unpaired_preference", "conversational unpaired", (MU,), [(MA,)]),
    ({"prompt": "p", "completions": ["x", "y"], "labels": [True, False]}, "stepwise", "stepwise", "p", ["x\ny"]),
    ({"prompt": "p", "completions": ["x", "y"], "ranks": [2, 1]}, "ranking", "ranking by ranks", "p", ["y", "x"]),
    (
        {"prompt": "p", "completions": ["x", "y", "z"], "scores": [1, 3, 2.5]},
        "ranking",
        "ranking by scores",
        "p",
        ["y", "z", "x"],
    ),
    ({"prompt": [U], "responses": ["a", "b"], "scores": [0, 1]}, "ranking", "ranking by scores", (MU,), [(MB,), (MA,)]),
    ({"prompt": [U], "completions": [[A], [B]], "ranks": [2, 1]}, "ranking", "ranking by ranks", (MU,), [(MB,), (MA,)]),
    ({"instruction": "i", "input": "", "output": "o"}, "prompt_completion", "Alpaca", (Message("user", "i"),), None),
    (
        {"instruction": "i", "input": "x", "output": "o"},
        "prompt_completion",
        "Alpaca",
        (Message("user", "i\n\nx"),),
        None,
    ),
    (
        {"instruction": "i", "output": "o", "system": "s"},
        "prompt_completion",
        "Alpaca",
        (MS, Message("user", "i")),
        None,
    ),
    (
        {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
        "language_modeling",
        "ShareGPT",
        (MU,),
        [(MA,)],
    ),
    (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "u"},
                {"from": "gpt", "value": "a"},
                {"from": "tool", "value": "t"},
                {"from": "gpt", "value": "b"},
            ]
        },
        "language_modeling",
        "ShareGPT",
        (MS, MU),
        [(MA, Message("tool", "t"), MB)],
    ),
    ({"question": "u", "answer": "a"}, "prompt_completion", "question and answer", (MU,), [(MA,)]),
]


@pytest.mark.parametrize(("row", "kind", "shape", "prompt", "completions"), SHAPES)
def test_shape(load, row, kind, shape, prompt, completions):
    data = load(row)
    assert (data.kind, data.shape) == (kind, shape)
    (group,) = data.groups
    assert group.prompt == prompt
    assert answers(group) == ([(Message("assistant", "o"),)] if completions is None else completions)
    assert group.origin.endswith("a.jsonl:1")
    assert load(row, kind=kind).groups == data.groups  # the kind that is detected also fits when it is asked for


def test_labels_scores_and_steps_are_kept(load):
    rows = [{"prompt": "p", "completion": "c", "label": label} for label in (True, 0, "1", "False")]
    assert [g.completions[0].label for g in load(*rows).groups] == [True, False, True, False]
    (group,) = load({"prompt": "p", "completions": ["x", "y", "z"], "labels": [True, None, False]}).groups
    assert group.completions[0] == Completion("x\ny\nz", steps=("x", "y", "z"), step_labels=(True, None, False))
    (group,) = load({"prompt": "p", "completions": ["x", "y", "z"], "error_steps": [2]}).groups
    assert group.completions[0].step_labels == (True, False, True)
    (group,) = load({"prompt": "p", "completions": ["x", "y"], "ranks": [2, 1]}).groups
    assert [c.score for c in group.completions] == [-1.0, -2.0]


def test_row_keeps_the_other_columns_and_the_reference_answer(load):
    assert load({"prompt": "p", "answer": "4", "level": 2}).groups[0].row == {"answer": "4", "level": 2}
    assert load({"question": "q", "answer": "4", "id": 1}).groups[0].row == {"answer": "4", "id": 1}
    assert load({"question": "q", "answer": "4"}, kind="prompt_only").groups[0].row == {"answer": "4"}
    assert load({"chosen": [U, A], "rejected": [U, B], "score": 3}).groups[0].row == {"score": 3}
    assert load({"messages": [U, A], "source": "x", "prompt": "u"}).groups[0].row == {"source": "x", "prompt": "u"}


def test_columns_map_ours_to_the_file_s(load):
    data = load({"input": "p", "target": "c", "id": 7}, columns={"prompt": "input", "completion": "target"})
    assert (data.kind, data.shape, data.groups[0].prompt) == ("prompt_completion", "plain prompt and completion", "p")
    assert data.groups[0].row == {"target": "c", "completion": "c", "id": 7}
    assert data.columns == ("input", "target", "id")
    # A mapped column that the shape does not read is for rewards, under both names; a mapped one hides nothing else.
    data = load({"text": "p", "target": "4"}, columns={"prompt": "text", "answer": "target"})
    assert (data.kind, data.groups[0].row) == ("prompt_only", {"target": "4", "answer": "4"})
    data = load({"question": "q", "answer": "4"}, columns={"prompt": "question", "completion": "answer"})
    assert (data.groups[0].prompt, answers(data.groups[0])) == ("q", ["4"])


def test_wrong_columns_and_kinds_are_refused_with_what_is_there(load):
    with pytest.raises(
        ValueError, match=r"columns\.prompt='questoin': .*did you mean question\?; columns there: question, n"
    ):
        load({"question": "q", "n": 1}, columns={"prompt": "questoin"})
    with pytest.raises(ValueError, match=r"columns\.promt: unknown; did you mean prompt\?"):
        load({"question": "q"}, columns={"promt": "question"})
    with pytest.raises(
        ValueError, match=r"kind='preference' needs the columns chosen \+ rejected; missing: rejected; columns there"
    ):
        load({"prompt": "p", "chosen": "c"}, kind="preference")
    with pytest.raises(ValueError, match=r"unknown; did you mean preference\?"):
        load({"prompt": "p"}, kind="preferences")
    with pytest.raises(ValueError, match=r"no known kind of row.*columns there: x, y"):
        load({"x": 1, "y": 2})
    with pytest.raises(ValueError, match="limit=0"):
        load({"prompt": "p"}, limit=0)
    with pytest.raises(ValueError, match="no file"):
        load_dataset([])


def test_a_list_of_answers_is_a_ranking_only_when_asked_for(load):
    row = {"prompt": "p", "responses": ["x", "y"]}
    with pytest.raises(ValueError, match="only if kind=ranking says that the best is first"):
        load(row)
    data = load(row, kind="ranking")
    assert (data.shape, answers(data.groups[0])) == ("ranking, best first as listed", ["x", "y"])


BAD = [
    ({"prompt": "", "completion": "c"}, "empty prompt"),
    ({"prompt": " \n", "completion": "c"}, "empty prompt"),
    ({"prompt": [], "completion": [A]}, "empty prompt"),
    ({"prompt": None, "completion": "c"}, "null prompt"),
    ({"prompt": 3, "completion": "c"}, "wrong type of prompt"),
    ({"prompt": "p", "completion": ""}, "empty completion"),
    ({"prompt": [U], "completion": []}, "last turn not assistant"),
    ({"prompt": [U], "completion": [{"role": "assistant", "content": " "}]}, "empty completion"),
    ({"prompt": [U], "completion": [A, V]}, "last turn not assistant"),
    ({"prompt": [U, {"role": "robot", "content": "x"}], "completion": [A]}, "unknown role"),
    ({"prompt": [U], "completion": [{"role": "assistant"}]}, "wrong type of completion"),
    ({"prompt": [U], "completion": ["a"]}, "wrong type of completion"),
    ({"prompt": [U, A], "completion": [B]}, "prompt ends with an assistant turn"),
    ({"prompt": "p"}, "no column completion"),
    ({"prompt": "p", "completion": "c", "images": ["x.png"]}, "row with images"),
    ({"prompt": "p", "completion": "c", "tools": [{"name": "f"}]}, "row with tools"),
    ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "completion": [A]}, "content that is not text"),
    (
        {"prompt": [U], "completion": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
        "message with tool_calls",
    ),
    ("{", "invalid JSON"),
]
GOOD = {"prompt": "p", "completion": "c", "images": None, "tools": []}


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_dropped_counted_and_shown_once(load, row, reason):
    data = load(GOOD, row, GOOD, row)
    assert len(data.groups) == 2 and data.dropped == {reason: 2} and data.num_rows == 4 and data.num_dropped == 2
    assert f"a.jsonl:2: {reason}" in data.examples[reason]


@pytest.mark.parametrize(
    ("good", "row", "reason"),
    [
        ({"chosen": "a b", "rejected": "a c"}, {"chosen": "a b", "rejected": "a b"}, "chosen == rejected"),
        ({"chosen": "a b", "rejected": "a c"}, {"chosen": "", "rejected": "a b"}, "empty completion"),
        ({"chosen": "a b", "rejected": "a c"}, {"chosen": "a b", "rejected": None}, "null rejected"),
        (
            {"chosen": "a b", "rejected": "a c"},
            {"chosen": "a", "rejected": [U, A]},
            "chosen and rejected differ in type",
        ),
        ({"chosen": [U, A], "rejected": [U, B]}, {"chosen": [U, A], "rejected": [V, B]}, "no shared prompt"),
        ({"chosen": [U, A], "rejected": [U, B]}, {"chosen": [U, A, V], "rejected": [U, B]}, "last turn not assistant"),
        (
            {"chosen": "\n\nHuman: u\n\nAssistant: a", "rejected": "\n\nHuman: u\n\nAssistant: b"},
            {"chosen": "\n\nHuman: u\n\nAssistant: a", "rejected": "\n\nHuman: u\n\nAssistant:"},
            "empty completion",
        ),
        (
            {"prompt": "p", "completion": "c", "label": True},
            {"prompt": "p", "completion": "c", "label": None},
            "null label",
        ),
        (
            {"prompt": "p", "completion": "c", "label": True},
            {"prompt": "p", "completion": "c", "label": "good"},
            "wrong type of label",
        ),
        (
            {"prompt": "p", "completions": ["x"], "labels": [True]},
            {"prompt": "p", "completions": ["x", "y"], "labels": [True]},
            "steps and labels differ in number",
        ),
        (
            {"prompt": "p", "completions": ["x"], "labels": [True]},
            {"prompt": "p", "completions": [], "labels": []},
            "empty completions",
        ),
        (
            {"prompt": "p", "completions": ["x"], "labels": [True]},
            {"prompt": "p", "completions": ["x"], "labels": [None]},
            "null label",
        ),
        (
            {"prompt": "p", "completions": ["x"], "error_steps": [1]},
            {"prompt": "p", "completions": ["x"], "error_steps": [0]},
            "error step out of range",
        ),
        (
            {"prompt": "p", "completions": ["x", "y"], "ranks": [1, 2]},
            {"prompt": "p", "completions": ["x"], "ranks": [1]},
            "fewer than two completions",
        ),
        (
            {"prompt": "p", "completions": ["x", "y"], "ranks": [1, 2]},
            {"prompt": "p", "completions": ["x", "y"], "ranks": [1, 1]},
            "all completions rank the same",
        ),
        (
            {"prompt": "p", "completions": ["x", "y"], "ranks": [1, 2]},
            {"prompt": "p", "completions": ["x", "y"], "ranks": [1, None]},
            "wrong type of ranks",
        ),
        (
            {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
            {"conversations": [{"from": "bard2", "value": "u"}]},
            "unknown role",
        ),
        ({"messages": [U, A]}, {"messages": [U]}, "last turn not assistant"),
        ({"messages": [U, A]}, {"messages": [U, {"role": "assistant", "content": ""}, V, B]}, "empty turn"),
        ({"text": "t"}, {"text": "  "}, "empty text"),
        ({"instruction": "i", "output": "o"}, {"instruction": "i", "output": ""}, "empty completion"),
    ],
)
def test_bad_rows_of_each_kind(load, good, row, reason):
    data = load(good, row)
    assert len(data.groups) == 1 and data.dropped == {reason: 1}


def test_no_good_row_and_no_row_at_all_are_errors_that_count(load):
    with pytest.raises(
        ValueError, match=r"none of 3 rows can be used \(2 x empty prompt; 1 x invalid JSON\); the first: .*a\.jsonl:1"
    ):
        load({"prompt": ""}, {"prompt": " "}, "{")
    with pytest.raises(ValueError, match=r"none of 1 rows can be used \(1 x invalid JSON\)"):
        load("{")
    for body in ("", "\n \n"):
        with pytest.raises(ValueError, match="empty"):
            load(body)


def test_implicit_prompts_are_cut_where_no_token_can_cross(load):
    cases = {
        ("foo barn", "foo bark"): "foo",
        ("foo bar", "foo bar baz"): "foo",
        ("foo  x", "foo  y"): "foo",
        ("a\n\nb", "a\n\nc"): "a",
        ("xy", "xz"): "",
    }
    for (chosen, rejected), prompt in cases.items():
        (group,) = load({"chosen": chosen, "rejected": rejected}).groups
        assert group.prompt == prompt and [prompt + str(a) for a in answers(group)] == [chosen, rejected]


def test_system_stands_before_conversations_without_one_and_makes_plain_prompts_conversations(load):
    assert load({"messages": [U, A]}, system="s").groups[0].prompt == (MS, MU)
    assert load({"messages": [S, U, A]}, system="other").groups[0].prompt == (MS, MU)
    (group,) = load({"prompt": "u", "completion": "a"}, system="s").groups
    assert (group.prompt, answers(group)) == ((MS, MU), [(MA,)])
    with pytest.raises(ValueError, match="system"):
        load({"text": "t"}, system="s")


def test_groups_are_read_as_they_are_written(load):
    groups = [
        Group(
            "p", (Completion("a", score=1.0, rewards={"x": None}), Completion("b")), row={"answer": "4"}, origin="z:1"
        ),
        Group((MU,), (Completion((MA,)),)),
        Group("q", ()),
    ]
    data = load(*(group_to_json(g) for g in groups))
    assert (data.kind, data.shape) == ("groups", "groups")
    assert data.groups[0] == groups[0]
    assert data.groups[1].prompt == (MU,) and data.groups[1].origin.endswith("a.jsonl:2")
    assert load(*[group_to_json(groups[0])] * 2, '{"prompt": "p", "completions": [{"contents": 1}]}').dropped == {
        "not a group": 1
    }


def test_a_stray_row_does_not_decide_the_kind(load):
    data = load({"chosen": "x", "rejected": "y", "prompt": "p"}, *[{"prompt": "p", "completion": "c"}] * 5)
    assert data.kind == "prompt_completion" and data.dropped == {"no column completion": 1}


def test_csv_lists_and_labels(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,completions,labels\np,"[""x"", ""y""]","[true, false]"\np,x,true\n')
    data = load_dataset(str(path))
    assert data.groups[0].completions[0].step_labels == (True, False) and data.dropped == {
        "wrong type of completions": 1
    }


def test_limit_stops_and_hash_is_of_the_whole_file(load, tmp_path):
    data = load(*[{"prompt": f"p{k}"} for k in range(10)], limit=3)
    assert [g.prompt for g in data.groups] == ["p0", "p1", "p2"]
    assert data.sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()


def test_several_files_are_one_data_set(tmp_path):
    for k in (1, 2):
        (tmp_path / f"{k}.jsonl").write_text(json.dumps({"prompt": f"p{k}"}))
    data = load_dataset([str(tmp_path / "2.jsonl"), str(tmp_path / "1.jsonl")])
    assert [g.prompt for g in data.groups] == ["p2", "p1"] and len(data.files) == 2


def test_saved_datasets_have_a_hash_of_their_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    hashes = []
    for name in ("a", "b"):
        datasets.Dataset.from_list([{"prompt": name}]).save_to_disk(str(tmp_path / name))
        data = load_dataset(str(tmp_path / name))
        assert data.files == () and data.groups[0].prompt == name
        hashes.append(data.sha256)
    assert hashes[0] != hashes[1]


def test_real_gsm8k(shared):
    start = time.process_time()
    data = load_dataset(str(shared / "gsm8k/train.jsonl.gz"))
    assert time.process_time() - start < 1.0
    assert (data.kind, len(data.groups), data.dropped) == ("prompt_completion", 7473, {})
    assert data.groups[0].row["answer"] == data.groups[0].completions[0].text
    assert data.groups[0].prompt_text.startswith("Natalia sold clips")


def test_real_hh_dialogues(shared):
    data = load_dataset(str(shared / "hh-rlhf"))
    assert (data.kind, data.shape, data.num_rows) == ("preference", "HH dialogue", 2312)
    assert data.num_dropped < 10 and len(data.groups) + data.num_dropped == 2312
    for group in data.groups:
        assert group.prompt[-1].role == "user" and group.prompt[0].role == "user"
        assert all(c.content[0].role == "assistant" == c.content[-1].role for c in group.completions)


def test_real_rows_of_other_habits(shared):
    def load(name, **options):
        return load_dataset(str(shared / name), **options)

    bbh = load("bbh", columns={"prompt": "input", "completion": "target"})
    assert (len(bbh.groups), len(bbh.files), bbh.groups[0].row["target"]) == (1750, 7, "False")
    tasks = load("self_instruct/seed_tasks.jsonl")
    assert (tasks.shape, len(tasks.groups) >= 175) == ("Self-Instruct", True)
    steps = load("prmbench", columns={"prompt": "question", "completions": "modified_process"})
    assert steps.kind == "stepwise" and len(steps.groups) + steps.num_dropped == 394 and steps.num_dropped < 20
    feedback = load("finegrained_rlhf", kind="prompt_only")
    assert len(feedback.groups) == 500 and "prediction 1" in feedback.groups[0].row
    assert load("ifeval").kind == "prompt_only"
