"""A byte-level BPE of 512 with digits apart, trained on the world's own text; no transformers.

The files are those of any fast tokenizer, so `AutoTokenizer.from_pretrained` reads the folder.
The tokenizer is the same for every seed: runs of different seeds stay comparable token by token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from strop.lazy import lazy_module
from strop.world.datasets import rows

if TYPE_CHECKING:
    import tokenizers
else:
    tokenizers = lazy_module("tokenizers")

VOCAB_SIZE = 512
NUM_LINES = 4000
PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CONTROL = (PAD, USER, ASSISTANT, END)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Each one token, but part of the text: decoding without special tokens must keep them."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}"
    "{{- '<|user|>' + message.content + '<|end|>' -}}"
    "{%- elif message.role == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message.content + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- raise_exception('the embedded world has user and assistant turns only, not ' + message.role) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer() -> tokenizers.Tokenizer:
    """Control tokens 0-3, tags 4-7, 256 bytes, then merges within words; a digit is never merged."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[*CONTROL, *TAGS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lines(), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, "the world's text has too few words for its vocabulary"
    return tokenizer


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json with the chat template, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _lines() -> Iterator[str]:
    for row in rows("sft", 0, NUM_LINES // 2):
        yield row["prompt"][0]["content"]
        yield from _TAG.split(row["completion"][0]["content"])


_TAG = re.compile("|".join(TAGS))  # split off, or their letters would be merged too
