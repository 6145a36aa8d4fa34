"""Small random models of several families, and what autograd keeps of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config, Qwen3MoeConfig

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


def qwen3(**more: Any) -> PreTrainedConfig:
    return Qwen3Config(**{**SHAPE, "tie_word_embeddings": True, **more})


def llama(**more: Any) -> PreTrainedConfig:
    return LlamaConfig(**{**SHAPE, "tie_word_embeddings": False, **more})


def experts(**more: Any) -> PreTrainedConfig:
    own = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    return Qwen3MoeConfig(**{**SHAPE, **own, "tie_word_embeddings": False, **more})


FAMILIES = {"qwen3": qwen3, "llama": llama, "experts": experts}


@pytest.fixture
def module() -> Callable[..., Any]:
    """A model of a family, with weights."""

    def made(family: str, **more: Any) -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(FAMILIES[family](**more))

    return made


@pytest.fixture
def batch() -> Callable[[int, int], Batch]:
    """A packed row of four sequences: half prompt, half answer."""

    def made(prompt: int, answer: int) -> Batch:
        draw = torch.Generator().manual_seed(0)

        def ids(n: int) -> tuple[int, ...]:
            return tuple(torch.randint(300, (n,), generator=draw).tolist())

        groups = [EncodedGroup(ids(prompt), (EncodedSequence(ids(answer), (True,) * answer),)) for _ in range(4)]
        return pack(groups, max_tokens=1 << 20).batches[0]

    return made


@pytest.fixture
def saved() -> Callable[[Any, Callable[[], Any]], int]:
    """Bytes of the storages that a forward saves for its backward, the module's own left out."""

    def counted(module: Any, run: Callable[[], Any]) -> int:
        own = {p.untyped_storage().data_ptr() for p in (*module.parameters(), *module.buffers())}
        found: dict[int, int] = {}
        alive = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)  # so that no other storage takes its place
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = run()
        del out
        return sum(found.values())

    return counted
