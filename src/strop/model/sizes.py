"""A model's modules without their weights, from its config alone: what planning counts. Reads no network."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from strop.model.adapter import base_of
from strop.model.load import first_line


def blank(path: str, layers: int | None = None) -> PreTrainedModel:
    """The causal language model of a folder, on the meta device: shapes and no weights.

    Args: layers: so many in place of the config's.
    Raises: ValueError in a sentence where there is no config to read.
    """
    config = read_config(path)
    if layers is not None:
        config = with_layers(config, layers)
    try:
        with torch.device("meta"):
            module: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path}: no causal language model can be made of its config: {first_line(error)}") from error
    return module


def read_config(path: str) -> PreTrainedConfig:
    """The config of a model's folder, of an adapter's base model, or of a hub name that was fetched before."""
    base = base_of(str(Path(path).expanduser())) if Path(path).expanduser().is_dir() else path
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(Path(base).expanduser()), local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(base).expanduser().is_dir():
            raise ValueError(f"{base}: its config.json cannot be read: {first_line(error)}") from error
        raise ValueError(
            f"{base}: no folder here, and a plan fetches nothing; put its config.json into a folder "
            f"(hf download {base} --include '*.json' --local-dir my-model) and plan with model=my-model"
        ) from error
    return config


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The same config with fewer layers."""
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return config
