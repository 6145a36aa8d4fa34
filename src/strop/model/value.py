"""Where critics start: a head on the policy's own trunk, or a reward model brought to the scale of its scores."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from strop.batch import Batch
from strop.model.forward import LanguageModel, hidden_states
from strop.model.head import ScalarModel, score_head

HEAD = "value_head"
"""The head's name in the module: the optimizer and checkpoints find it there, `save_pretrained` leaves it out."""


def with_value_head(model: LanguageModel) -> LanguageModel:
    """The model with a head that says 0 of every state, until it is trained.

    Raises: ValueError where the model's own head hides its hidden states.
    """
    module = model.module
    if not model.plain_head:
        raise ValueError(f"{type(module).__name__} cannot share its trunk with a critic ({model.why}); give a critic")
    weight = module.get_output_embeddings().weight
    head = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    module.add_module(HEAD, head)
    module._keys_to_ignore_on_save = {*(module._keys_to_ignore_on_save or ()), f"{HEAD}.weight", f"{HEAD}.bias"}
    return replace(model, value_head=head)


def shared_values(model: LanguageModel, batch: Batch) -> Tensor:
    """Values [N] of the head, fp32, without the log-probs."""
    assert model.value_head is not None, "no value head"
    values: Tensor = model.value_head(hidden_states(model, batch, batch.predictor, batch.seq).float()).squeeze(-1)
    return values


def bring_to_scale(critic: ScalarModel, *, mean: float, std: float) -> None:
    """Make the critic say (V - mean) / std from now on, as a reward model's scores are normalised."""
    head = score_head(critic.module)
    assert head.bias is not None, "transformers' token classifiers have a bias"
    with torch.no_grad():
        head.bias[-1] -= mean  # with two labels the score is logit[1] - logit[0]
        head.weight.div_(std)
        head.bias.div_(std)


def write_critic(model: LanguageModel, folder: Path) -> None:
    """Trunk and head as a critic of its own: transformers' token classifier with one label."""
    assert model.value_head is not None, "no value head"
    config = copy.deepcopy(model.module.config)
    config.num_labels, config.problem_type = 1, "regression"
    config.id2label, config.label2id = {0: "score"}, {"score": 0}
    with torch.device("meta"):
        critic = AutoModelForTokenClassification.from_config(config, dtype=model.module.dtype)
    setattr(critic, critic.base_model_prefix, model.module.base_model)
    head = score_head(critic)
    for name, value in model.value_head.named_parameters():
        if getattr(head, name) is not None:
            setattr(head, name, value)
    critic.save_pretrained(folder)
