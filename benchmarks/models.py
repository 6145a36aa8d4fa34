"""The benchmark's models: Qwen3 shapes with random weights, and a tokenizer of numbered words.

| model | hidden | layers | heads x size | key-value heads | feed-forward | vocabulary | parameters |
|---|---|---|---|---|---|---|---|
| A | 192 | 4 | 3 x 64 | 1 | 512 | 1,024 | 1,771,712 |
| B | 512 | 8 | 8 x 64 | 2 | 2,048 | 65,536 | 63,972,864 |

Embeddings are tied to the head, as in Qwen3 models of this size. Both sides load the same folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3 model; `feed_forward` is the MLP's inner width, `head` the size of one head."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head: int
    feed_forward: int
    vocabulary: int

    def matmul_parameters(self) -> int:
        """Weights of one forward's matrix products outside embedding and vocabulary head."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)


SHAPES = {
    "A": Shape(192, 4, 3, 1, 64, 512, 1_024),
    "B": Shape(512, 8, 8, 2, 64, 2_048, 65_536),
}

PAD_ID, UNKNOWN_ID, FIRST_WORD = 0, 1, 2


def save_model(shape: Shape, folder: Path, *, stops: bool, scores: bool = False, seed: int = 0) -> int:
    """Writes a random model and its tokenizer as one folder both sides load; returns its parameters.

    Args: stops: whether the stop token is one the model can emit. Where it is not (its id lies
        one past the model's vocabulary), every rollout runs to the length limit on both sides.
        scores: also write its trunk with a random scalar head, to `scorer_folder(folder)`.
    """
    import torch
    import transformers
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

    transformers.logging.disable_progress_bar()
    torch.manual_seed(seed)
    stop_id = stop_token(shape, stops=stops)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head,
        max_position_embeddings=4_096,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=stop_id if stops else None,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    _tokenizer(shape, stop_id).save_pretrained(folder)
    if scores:
        config.num_labels = 1
        scorer = Qwen3ForSequenceClassification(config)
        scorer.model.load_state_dict(model.model.state_dict())
        scorer.save_pretrained(scorer_folder(folder))
        _tokenizer(shape, stop_id).save_pretrained(scorer_folder(folder))
    return int(model.num_parameters())


def scorer_folder(folder: str | Path) -> Path:
    """Where the model with a scalar head stands, beside the language model."""
    return Path(folder).with_name("scorer")


def stop_token(shape: Shape, *, stops: bool) -> int:
    """The stop token's id: the last of the vocabulary, or one past it."""
    return shape.vocabulary - 1 if stops else shape.vocabulary


def word(token_id: int) -> str:
    """The word of a token id; words stand between spaces."""
    return f"w{token_id}"


def _tokenizer(shape: Shape, stop_id: int) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD_ID, "<unk>": UNKNOWN_ID, "<stop>": stop_id}
    vocabulary |= {word(i): i for i in range(FIRST_WORD, shape.vocabulary) if i != stop_id}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<stop>", padding_side="left"
    )
