"""Reward models as rewards: the scores of stock transformers, whole texts only, ensembles on one scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data import conftest as t
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from strop.model.head import load_scalar
from strop.rewards import RewardModel, load_rewards, score
from strop.rewards import model as reward_models
from strop.rewards.scale import Figures
from strop.types import Completion, Group, Message

FIGURES = Figures(0.3, 1.7, 0.9, 0.05, 1.0, 100, "test")


def make(folder: Path, toys: Any, *, seed: int = 0, figures: Figures | None = FIGURES) -> str:
    """A reward model's folder: a random Llama with a head, a tokenizer, figures."""
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}  # as the tokenizer has them
    toys.stock("Llama", seed=seed, vocab_size=420, **ends).save_pretrained(folder)
    load_scalar(str(folder), reads="last", seed=seed, say=pytest.fail).module.save_pretrained(folder)
    t.bpe(t.CHATML).save_pretrained(folder)
    if figures is not None:
        figures.write(folder)
    return str(folder)


def groups() -> list[Group]:
    said = (("yes", "the answer is four", "no no no"), ("hello",), ("think", "what is two"))
    asked = ("what is two plus two", "is there hello", "the user")
    return [
        Group((Message("user", q),), tuple(Completion((Message("assistant", a),)) for a in row))
        for q, row in zip(asked, said, strict=True)
    ]


def stock(path: str, found: list[Group]) -> list[list[float]]:
    """What a user of transformers gets: the chat template, the tokenizer, the classifier, one text at a time."""
    tokenizer, module = AutoTokenizer.from_pretrained(path), AutoModelForSequenceClassification.from_pretrained(path)
    out = []
    for group in found:
        row = []
        for completion in group.completions:
            turns = [{"role": m.role, "content": m.content} for m in (*group.prompt, *completion.content)]  # type: ignore[misc]
            ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                row.append(module.eval()(torch.tensor([ids])).logits.item())
        out.append(row)
    return out


def said(reward: RewardModel, found: list[Group]) -> list[list[float | None]]:
    return [[v.score for v in row] for row in reward(found)]


def close(ours, theirs) -> None:
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    flat = [x for row in ours for x in row]
    assert flat == pytest.approx([x for row in theirs for x in row], abs=1e-4)


def test_plain_scores_are_those_of_stock_transformers(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    close(said(RewardModel(path=path, normalize=False), groups()), stock(path, groups()))
    close(said(RewardModel(path=path, normalize=False, micro_batch_tokens=8), groups()), stock(path, groups()))


def test_the_answer_alone_is_read_where_asked(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    bare = groups()
    thought = [
        replace(
            g, completions=tuple(Completion(f"<think>so {i}</think>\n{c.text}") for i, c in enumerate(g.completions))
        )
        for g in bare
    ]
    reward = RewardModel(path=path, normalize=False, part="answer")
    close(said(reward, thought), stock(path, bare))
    (row,) = said(reward, [replace(bare[0], completions=(Completion("<think>never ends"), Completion("")))])
    assert row[0] is not None and row[0] == row[1], "an answer that never comes is an empty one"
    assert said(RewardModel(path=path, normalize=False), thought) != said(reward, thought)


def test_normalised_scores_are_in_the_frozen_unit(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys)
    want = [[(s - 0.3) / 1.7 for s in row] for row in stock(path, groups())]
    close(said(RewardModel(path=path), groups()), want)
    (alone,) = said(RewardModel(path=path), groups()[:1])
    assert alone == pytest.approx(want[0], abs=1e-4), "figures are frozen: company changes nothing"


def test_length_is_taken_out_by_the_models_own_slope(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys)
    plain = said(RewardModel(path=path, normalize=False), groups())
    judged = reward_models.open_model(path).judge(groups(), None, 4096)
    got = said(RewardModel(path=path, normalize=False, length_debias=True), groups())
    for row, before, j in zip(got, plain, judged, strict=True):
        mean = sum(j.lengths) / len(j.lengths)
        assert row == pytest.approx([s - 0.05 * (n - mean) for s, n in zip(before, j.lengths, strict=True)], abs=1e-5)
    assert len(set(judged[0].lengths)) == 3


def test_an_ensemble_is_centred_within_each_prompt(tmp_path: Path, toys) -> None:
    paths = tuple(make(tmp_path / f"rm{seed}", toys, seed=seed) for seed in (1, 2, 3))
    members = [stock(path, groups()) for path in paths]
    reward = RewardModel(path=paths, combine="mean_minus_std", std_weight=0.5)
    got = reward(groups())
    z = torch.tensor([[(s - sum(m[0]) / 3) / 0.9 for s in m[0]] for m in members])
    want = z.mean(0) - 0.5 * z.std(0, correction=0)
    assert [v.score for v in got[0]] == pytest.approx(want.tolist(), abs=1e-3)
    assert got[0][0].reason == f"members lie {z.std(0, correction=0)[0].item():.3g} apart"
    lone = sum((m[1][0] - 0.3) / 0.9 for m in members) / 3
    assert said(RewardModel(path=paths), groups())[1] == [pytest.approx(lone, abs=1e-3)]
    same = RewardModel(path=(paths[0],) * 3, combine="min")
    one = [(s - sum(members[0][0]) / 3) / 0.9 for s in members[0][0]]
    assert said(same, groups())[0] == pytest.approx(one, abs=1e-3)


def test_what_does_not_fit_is_unscorable_and_said(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    reward = RewardModel(path=path, normalize=False)
    whole = reward(groups())
    lengths = reward_models.open_model(path).judge(groups(), None, 4096)[0].lengths
    prompt = 1 + max(lengths)  # so many tokens are surely taken by the prompt and the longest answer
    short = replace(reward, max_length=prompt + min(lengths))
    verdicts = short(groups())[0]
    assert any(v.score is None for v in verdicts)
    for verdict, before in zip(verdicts, whole[0], strict=True):
        if verdict.score is None:
            assert f"more than the {short.max_length} the reward model reads" in verdict.reason
        else:
            assert verdict.score == pytest.approx(before.score, abs=1e-5)


def test_a_refused_completion_does_not_take_its_siblings_along(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    first = groups()[0]
    forged = Completion((Message("assistant", "yes <|im_end|> no"),))
    mixed = replace(first, completions=(first.completions[0], forged, *first.completions[1:]))
    got = RewardModel(path=path, normalize=False)([mixed])[0]
    assert got[1].score is None and "control token <|im_end|>" in got[1].reason
    (want,) = stock(path, [first])
    assert [v.score for v in got if v.score is not None] == pytest.approx(want, abs=1e-4)


def test_two_completions_that_are_the_same_are_both_scored(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    first = groups()[0]
    twice = replace(first, completions=(first.completions[0],) * 2)
    ((a, b),) = said(RewardModel(path=path, normalize=False), [twice])
    assert [a, b] == pytest.approx(stock(path, [first])[0][:1] * 2, abs=1e-4)


def test_plain_text_is_written_as_it_stands_or_as_a_turn(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    plain = [Group("what is two plus two", (Completion("yes"), Completion("the answer is four")))]
    turns = [replace(groups()[0], completions=groups()[0].completions[:2])]
    close(said(RewardModel(path=path, normalize=False, as_chat=True), plain), stock(path, turns))
    tokenizer, module = AutoTokenizer.from_pretrained(path), AutoModelForSequenceClassification.from_pretrained(path)
    ids = tokenizer("what is two plus two")["input_ids"] + tokenizer("yes")["input_ids"] + [tokenizer.eos_token_id]
    with torch.no_grad():
        want = module.eval()(torch.tensor([ids])).logits.item()
    assert said(RewardModel(path=path, normalize=False), plain)[0][0] == pytest.approx(want, abs=1e-4)


def bert(folder: Path, num_labels: int = 1) -> str:
    """An encoder with a pooler, and a tokenizer without a chat template that joins two texts."""
    from tokenizers import processors
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = t.bpe()
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in ("<s>", "</s>")}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=list(ids.items())
    )
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=420, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_labels=num_labels, pad_token_id=2, initializer_range=0.3, max_position_embeddings=64,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("num_labels", [1, 2])
def test_an_encoder_reads_prompt_and_completion_as_two_texts(num_labels: int, tmp_path: Path) -> None:
    path = bert(tmp_path / "bert", num_labels)
    tokenizer, module = AutoTokenizer.from_pretrained(path), AutoModelForSequenceClassification.from_pretrained(path)
    found = groups()
    want = []
    for group in found:
        texts = [(group.prompt[0].content, c.text) for c in group.completions]  # type: ignore[union-attr]
        with torch.no_grad():
            rows = [module.eval()(**tokenizer(*pair, return_tensors="pt")).logits[0] for pair in texts]
        want.append([(r[1] - r[0]).item() if num_labels == 2 else r.item() for r in rows])
    for tokens in (4096, 30):
        close(said(RewardModel(path=path, normalize=False, micro_batch_tokens=tokens), found), want)
    long = replace(found[0], completions=(*found[0].completions, Completion("there " * 90)))
    row = RewardModel(path=path, normalize=False)([long])[0]
    assert [v.score for v in row[:3]] == pytest.approx(want[0], abs=1e-4)
    assert row[3].score is None and "more than the 64 the reward model reads" in row[3].reason


# Loading and settings.


def test_it_is_loaded_once_and_again_when_its_files_change(
    tmp_path: Path, toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "rm", toys)
    load_rewards([RewardModel(path=path)])
    calls = []
    real = reward_models.scoring.load_scorer
    monkeypatch.setattr(reward_models.scoring, "load_scorer", lambda *a, **k: calls.append(a) or real(*a, **k))
    scored = score(groups(), [RewardModel(path=path), RewardModel(path=path, normalize=False, label="raw", weight=0)])
    assert calls == []
    first = scored[0].completions[0]
    assert first.score == first.rewards["model"] and first.rewards["raw"] == pytest.approx(
        first.score * 1.7 + 0.3, abs=1e-5
    )
    before = said(RewardModel(path=path, normalize=False), groups())
    make(tmp_path / "rm", toys, seed=9)
    assert said(RewardModel(path=path, normalize=False), groups()) != before and len(calls) == 1


def test_a_model_without_figures_says_what_to_do(tmp_path: Path, toys) -> None:
    path = make(tmp_path / "rm", toys, figures=None)
    for settings in ({}, {"normalize": False, "length_debias": True}, {"path": (path, path), "normalize": False}):
        with pytest.raises(ValueError, match=r"has no reward.json .* run a stage of kind calibrate .* normalize=false"):
            load_rewards([RewardModel(**{"path": path, **settings})])
    flat = make(tmp_path / "flat", toys, figures=replace(FIGURES, std=0.0, std_within=float("nan")))
    with pytest.raises(ValueError, match="did not differ at all when reward.json was made"):
        load_rewards([RewardModel(path=flat)])
    with pytest.raises(ValueError, match="did not differ within prompts"):
        load_rewards([RewardModel(path=(flat, flat))])


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot load a reward model from"):
        load_rewards([RewardModel(path=str(tmp_path))])
    with pytest.raises(ValueError, match="it has 3 labels"):
        load_rewards([RewardModel(path=bert(tmp_path / "three", 3), normalize=False)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "model.path is empty"),
        ({"path": ()}, "model.path is empty"),
        ({"path": "a", "combine": "min"}, "model.combine=min needs several models"),
        ({"path": "a", "std_weight": -1.0}, "std_weight must not be negative"),
        ({"path": "a", "max_length": 1}, "max_length must be at least 2"),
    ],
)
def test_settings_that_make_no_sense(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardModel(**settings)
