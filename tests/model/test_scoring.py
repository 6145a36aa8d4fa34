"""Asking classifiers for scores: in the shape of the groups, whatever the batches; stock models as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from strop.data.encoded import EncodedGroup
from strop.model.head import load_scalar
from strop.model.scoring import Row, SharedScorer, StockScorer, load_scorer


@pytest.fixture
def folder(tmp_path: Path, toys) -> str:
    toys.stock("Llama").save_pretrained(tmp_path)
    load_scalar(str(tmp_path), reads="last", say=pytest.fail).module.save_pretrained(tmp_path)
    return str(tmp_path)


def spelled_out(path: str, groups: list[EncodedGroup]) -> list[list[float]]:
    module = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        return [[module(torch.tensor([g.prompt_ids + s.ids])).logits.item() for s in g.sequences] for g in groups]


def close(ours: list[list[float]], theirs: list[list[float]]) -> None:
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    assert sum(ours, []) == pytest.approx(sum(theirs, []), abs=1e-4)


@pytest.mark.parametrize("max_tokens", [1, 60, 1 << 20])
def test_scores_have_the_shape_of_the_groups(max_tokens: int, folder: str, groups) -> None:
    """Also where a group is split over batches, and packs stand in another order."""
    scorer = load_scorer(folder, say=pytest.fail)
    assert isinstance(scorer, SharedScorer) and scorer.model.path == "packed"
    close(scorer.score_groups(groups, max_tokens), spelled_out(folder, groups))
    close(scorer.score_groups(groups[::-1], max_tokens), spelled_out(folder, groups)[::-1])
    assert scorer.score_groups([], max_tokens) == []


def test_a_head_of_its_own_runs_as_transformers_made_it(tmp_path: Path, groups) -> None:
    sizes = {"vocab_size": 89, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = BertConfig(**sizes, num_attention_heads=4, num_labels=1, initializer_range=0.3, pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(tmp_path)
    said: list[str] = []
    scorer = load_scorer(str(tmp_path), say=said.append)
    assert isinstance(scorer, StockScorer) and "its head is its own" in said[0]
    for max_tokens in (1, 300, 1 << 20):
        close(scorer.score_groups(groups, max_tokens), spelled_out(str(tmp_path), groups))
    rows = [Row((5, 6, 7), (0, 1, 1)), Row((8, 9, 10, 11, 12), (0, 0, 1, 1, 1)), Row((3, 4), (0, 1))]
    module = scorer.module
    with torch.no_grad():
        want = [
            module(input_ids=torch.tensor([r.ids]), token_type_ids=torch.tensor([r.types])).logits.item() for r in rows
        ]
    assert scorer.score_rows(rows, 8) == pytest.approx(want, abs=1e-5)


def test_what_is_no_classifier_is_an_error(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="cannot load a reward model from"):
        load_scorer(str(tmp_path / "nowhere"))
    config = BertConfig(vocab_size=89, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                        num_labels=3)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match="it has 3 labels"):
        load_scorer(str(tmp_path / "three"))
