"""A critic on the policy's trunk: nothing at first, the numbers a critic of its own has, and no part of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

from strop.model.forward import LanguageModel
from strop.model.head import load_scalar
from strop.model.load import load, prepare
from strop.model.value import bring_to_scale, shared_values, with_value_head, write_critic


@pytest.fixture
def model(toys) -> LanguageModel:
    return with_value_head(prepare(toys.stock("Qwen3"), say=pytest.fail))


def trained(model: LanguageModel) -> LanguageModel:
    """The model after its head learnt something."""
    assert model.value_head is not None
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        model.value_head.weight.normal_(generator=generator)
        model.value_head.bias.fill_(0.5)
    return model


def batch_of(toys: Any) -> Any:
    return toys.one_batch(toys.ragged(0, vocab=80, sizes=(2, 3)))


def test_it_starts_by_saying_nothing_and_learns_where_it_stands(model: LanguageModel, toys) -> None:
    outputs = model(batch_of(toys), wants=("values",))
    assert outputs.values is not None and outputs.values.tolist() == [0.0] * len(outputs.logprobs)
    outputs.values.sum().backward()
    assert model.value_head is not None and float(model.value_head.bias.grad) == len(outputs.values)
    names = [name for name, p in model.module.named_parameters() if p is model.value_head.weight]
    assert names == ["value_head.weight"], "the optimizer and checkpoints find it in the module"


def test_values_alone_are_those_beside_the_logprobs(model: LanguageModel, toys) -> None:
    batch = batch_of(toys)
    both = trained(model)(batch, wants=("values",))
    torch.testing.assert_close(shared_values(model, batch), both.values, rtol=0, atol=1e-6)
    torch.testing.assert_close(both.logprobs, model(batch).logprobs, rtol=0, atol=1e-6)


def test_a_value_does_not_see_the_token_it_stands_before(model: LanguageModel, toys) -> None:
    """Two completions that differ in their second token: the values before it agree, those after differ."""
    group = toys.group((3, 4, 5), (6, 7, 8), (6, 9, 8))
    batch = toys.one_batch([group])
    first, second = shared_values(trained(model), batch).split(3)
    torch.testing.assert_close(first[:2], second[:2], rtol=0, atol=1e-5)
    assert abs(float((first - second)[2].detach())) > 1e-3


def test_the_critics_folder_says_the_same(model: LanguageModel, toys, tmp_path: Path) -> None:
    batch = batch_of(toys)
    values = shared_values(trained(model), batch)
    write_critic(model, tmp_path)
    critic = load_scalar(str(tmp_path), reads="before", say=pytest.fail)
    torch.testing.assert_close(critic(batch).values, values, rtol=0, atol=1e-5)
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    logits = stock(input_ids=torch.tensor([[3, 4, 5, 6]])).logits[0, :, 0]
    alone = toys.one_batch([toys.group((3,), (4, 5, 6, 7))])
    torch.testing.assert_close(shared_values(model, alone), logits, rtol=0, atol=1e-5)


def test_the_head_is_no_part_of_the_saved_model(model: LanguageModel, tmp_path: Path, toys) -> None:
    model.module.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "value" in name]
    again = load(str(tmp_path))
    torch.testing.assert_close(
        again(batch_of(toys)).logprobs, model(batch_of(toys)).logprobs.detach(), rtol=0, atol=1e-5
    )


def test_a_model_that_hides_its_states_is_refused(toys) -> None:
    hidden = prepare(toys.stock("Gemma2"), say=lambda text: None)
    assert not hidden.plain_head, "Gemma2 caps its logits"
    with pytest.raises(ValueError, match="Gemma2ForCausalLM cannot share its trunk with a critic"):
        with_value_head(hidden)


def test_a_reward_model_is_brought_to_the_scale_of_its_scores(toys, tmp_path: Path) -> None:
    toys.stock("Qwen3").save_pretrained(tmp_path)
    critic = load_scalar(str(tmp_path), reads="before", init="normal", say=lambda text: None)
    before = critic(batch_of(toys)).values
    bring_to_scale(critic, mean=1.5, std=4.0)
    torch.testing.assert_close(critic(batch_of(toys)).values, (before - 1.5) / 4.0, rtol=1e-5, atol=1e-6)
