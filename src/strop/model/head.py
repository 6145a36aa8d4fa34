"""Models that end in one number: reward models, process reward models, critics.

The module is transformers' own classifier of the architecture with a single label, so
`save_pretrained` writes what its Auto class loads: `AutoModelForSequenceClassification` where the
last token is read, `AutoModelForTokenClassification` where every token is. The number is the head,
one linear layer, on the backbone's last hidden state.

Left out: heads that are more than a linear layer (BERT's pooler); such a model can only be asked
for scores, by `model/scoring.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from strop.batch import Batch, Outputs
from strop.model.adapter import LoRA, base_of, require, shaken
from strop.model.adapter_files import adapted
from strop.model.forward import Model, autocasting, hidden_states, precision_name, unroll
from strop.model.load import (
    Precision,
    disable_dropout,
    dtype,
    first_line,
    has_weights,
    on_device,
    probe_batch,
    quantization,
    read_weights,
    share_prefixes,
    weights_dtype,
)
from strop.model.norms import fuse_norms
from strop.model.tail import find_tail

Reads = Literal["last", "token", "before"]
"""Where the head reads: each sequence's last token, each trained token, or the state before each."""

_AUTO: dict[Reads, Any] = {
    "last": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "before": AutoModelForTokenClassification,
}
_CALLED: dict[Reads, str] = {"last": "reward model", "token": "process reward model", "before": "critic"}
_HEADS = ("score", "classifier")
_SUFFIXES = {
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForTokenClassification": AutoModelForTokenClassification,
}


class OtherHead(ValueError):
    """A classifier whose head is not one linear layer on the last hidden state."""


@dataclass(frozen=True, slots=True)
class ScalarModel:
    """A stock transformers classifier with one score, and how it is run.

    Attributes:
        reads: `last` gives `scores` [S] at each sequence's last token; `token` gives `values` [N]
            at each trained token (both need packs made with read_last); `before` gives `values` [N]
            at the token before each trained one, which is what a critic may know.
        path, why, tail, autocast: as in `LanguageModel`.
    """

    module: PreTrainedModel
    reads: Reads = "last"
    path: Literal["packed", "padded"] = "packed"
    why: str = ""
    tail: nn.Module | None = None
    autocast: torch.dtype | None = None

    @property
    def device(self) -> str:
        return str(self.module.device)

    @property
    def precision(self) -> torch.dtype:
        """What the matrix products run in."""
        return self.autocast or self.module.dtype

    @property
    def precision_name(self) -> str:
        """fp32, bf16, ..."""
        return precision_name(self.precision)

    def autocasting(self) -> AbstractContextManager[None]:
        """The context its forwards run in."""
        return autocasting(self.module, self.autocast)

    def __call__(self, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs:
        """`scores` [S] or `values` [N], fp32; no log-probs. The temperature is of no use here."""
        positions, sequences = _where(self.reads, batch)
        numbers = apply_head(score_head(self.module), hidden_states(self, batch, positions, sequences))
        nothing = numbers.new_empty(0)
        return Outputs(nothing, scores=numbers) if self.reads == "last" else Outputs(nothing, values=numbers)


def load_scalar(
    path: str,
    *,
    reads: Reads,
    device: str = "cpu",
    precision: Precision = "auto",
    seed: int = 0,
    trainable: bool = False,
    init: Literal["normal", "zero"] = "normal",
    pad_token_id: int | None = None,
    adapter: LoRA | None = None,
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    say: Callable[[str], None] = print,
) -> ScalarModel:
    """The scalar model of a folder or hub name: a classifier's own head, or a fresh one on a language model's trunk.

    Args:
        init: a fresh head is normal with variance 1/(d + 1) (Stiennon et al. 2020, arXiv:2009.01325) or
            zero; its bias is zero. A function of `seed`.
        pad_token_id: goes into the config, where stock transformers finds the last token by it; it
            must never end an answer. None: the config's own, unless that is an end token.
        adapter: trains low-rank matrices in the trunk, and the head in full.
    A classifier with two labels gives the difference of their logits. Precision as in `load`.
    Raises: ValueError naming the path where there is no such model; `OtherHead` for one with a head of its own.
    """
    computed, base = dtype(device, precision), base_of(path)
    if adapter is not None:
        require(adapter, device)
    kind = weights_dtype(computed, trainable, adapter)
    try:
        quantize = quantization(adapter, computed, device)
        module = _module(base, _AUTO[reads], kind, seed, init, trust_remote_code, quantize, say)
        if reads == "last":
            _set_padding(module, pad_token_id, say)
        module = adapted(module, path, adapter, seed=seed, kind=kind, heads=(_head_name(module),))
        with shaken(module):
            model = prepare_scalar(
                on_device(module, device), reads=reads, gradient_checkpointing=gradient_checkpointing, say=say
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        kind_of_error = OtherHead if isinstance(error, OtherHead) else ValueError
        raise kind_of_error(f"cannot load a {_CALLED[reads]} from {path!r}: {first_line(error)}") from error
    return model if not trainable or computed == torch.float32 else replace(model, autocast=computed)


def prepare_scalar(
    module: PreTrainedModel,
    *,
    reads: Reads,
    gradient_checkpointing: bool = False,
    say: Callable[[str], None] = print,
) -> ScalarModel:
    """Turn dropout off, choose the path by a probe, and switch checkpointing on where asked.

    Raises: OtherHead where the head is not one linear layer on the last hidden state.
    """
    disable_dropout(module)
    if module.device.type == "cpu":
        fuse_norms(module)
    model = _choose_path(module, reads)
    if model.why:
        say(f"{type(module).__name__}: {model.why}")
    module.train()  # only so that gradient checkpointing, which transformers ties to it, can act
    if gradient_checkpointing:  # layers run again in the backward, when the rows are no longer known
        model = replace(model, tail=None)
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def reads_last(model: Model) -> bool:
    """Whether the packs a model reads must hold each sequence's last token, which predicts nothing."""
    return isinstance(model, ScalarModel) and model.reads != "before"


def score_head(module: PreTrainedModel) -> nn.Linear:
    """The linear layer that gives the score.

    Raises: OtherHead where there is none.
    """
    head: nn.Linear = getattr(module, _head_name(module))
    return head


def _head_name(module: PreTrainedModel) -> str:
    for name in _HEADS:
        if isinstance(getattr(module, name, None), nn.Linear):
            return name
    raise OtherHead(f"the head of {type(module).__name__} is not one linear layer; it cannot be trained here")


def apply_head(head: nn.Linear, hidden: Tensor) -> Tensor:
    """Scores [M] of hidden states [M, d], fp32; with two labels logit[1] - logit[0]."""
    bias = None if head.bias is None else head.bias.float()
    logits = F.linear(hidden.float(), head.weight.float(), bias)
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits.squeeze(-1)


def _where(reads: Reads, batch: Batch) -> tuple[Tensor, Tensor]:
    """The packed positions that are read, and the sequence of each."""
    if reads == "last":
        return batch.last, torch.arange(batch.num_sequences, device=batch.last.device)
    if reads == "before":
        return batch.predictor, batch.seq
    assert bool((batch.position >= 0).all()), "a head that reads trained tokens needs packs made with read_last"
    return batch.position, batch.seq


# Loading.


def _module(
    path: str,
    auto: Any,
    kind: torch.dtype,
    seed: int,
    init: Literal["normal", "zero"],
    trust_remote_code: bool,
    quantize: Mapping[str, Any],
    say: Callable[[str], None],
) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    own = _classifier(config)
    if own is None:
        _one_label(config)
    elif config.num_labels > 2:
        raise ValueError(f"it has {config.num_labels} labels; a score is one, or two whose logits are subtracted")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if has_weights(path):
            fresh = () if own else tuple(f"{name}." for name in _HEADS)
            with _no_report():
                module = read_weights(
                    own or auto, path, kind, trust_remote_code, config=config, fresh=fresh, quantize=quantize
                )
        else:
            say(f"{path} has a config and no weights: starting from random weights (seed {seed})")
            own = None
            module = auto.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
        if own is None:
            _init_head(score_head(module), init)
    return module if own in (None, auto) else _recast(module, auto)


@contextmanager
def _no_report() -> Iterator[None]:
    """Until the block ends transformers does not list what a fresh head lacks; `read_weights` refuses the rest."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _classifier(config: PreTrainedConfig) -> Any:
    """The Auto class of a folder that holds a classifier; None for a language model."""
    for name in config.architectures or ():
        for suffix, auto in _SUFFIXES.items():
            if name.endswith(suffix):
                return auto
    return None


def _one_label(config: PreTrainedConfig) -> None:
    config.num_labels = 1
    config.id2label, config.label2id = {0: "score"}, {"score": 0}
    config.problem_type = "regression"


def _init_head(head: nn.Linear, init: Literal["normal", "zero"]) -> None:
    with torch.no_grad():
        if init == "normal":
            head.weight.normal_(0.0, (head.in_features + 1) ** -0.5)
        else:
            head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()


def _recast(module: PreTrainedModel, auto: Any) -> PreTrainedModel:
    """The same trunk and head in the other kind of classifier: a critic that starts as a reward model."""
    with torch.device("meta"):
        other: PreTrainedModel = auto.from_config(module.config, dtype=module.dtype)
    setattr(other, other.base_model_prefix, module.base_model)
    old, blank = score_head(module), score_head(other)
    head = nn.Linear(old.in_features, old.out_features, bias=blank.bias is not None, dtype=old.weight.dtype)
    with torch.no_grad():
        head.weight.copy_(old.weight)
        if head.bias is not None:
            head.bias.copy_(old.bias) if old.bias is not None else head.bias.zero_()
    setattr(other, _head_name(other), head)
    return other.eval()


def _set_padding(module: PreTrainedModel, pad_token_id: int | None, say: Callable[[str], None]) -> None:
    """Name a pad token that ends no answer: stock classifiers read the last token that is not padding."""
    config = module.config.get_text_config()
    ends = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id or ())
    pad = config.pad_token_id if pad_token_id is None else pad_token_id
    if pad is None or pad in ends:
        was = pad
        likely = () if config.bos_token_id is None else (config.bos_token_id,)
        pad = next(i for i in (*likely, *range(config.vocab_size)) if i not in ends)
        why = "the config has no pad token" if was is None else f"its pad token {was} is an end token"
        say(f"{why}, so stock transformers would not find the last token of a row; padding with {pad}")
    config.pad_token_id = module.config.pad_token_id = pad


# The choice of a path.


def _choose_path(module: PreTrainedModel, reads: Reads) -> ScalarModel:
    """Compare our head with the model's own, then a tiny packed forest with the padded path."""
    batch = _probe(module)
    padded = ScalarModel(module, reads, path="padded")
    candidate = ScalarModel(module, reads, tail=find_tail(module))
    if not _is_own_head(padded, batch):
        raise OtherHead(
            f"the head of {type(module).__name__} does not read its last hidden state; it cannot be trained here"
        )
    why = share_prefixes(module, "scores", lambda: _many_scores(padded, batch), lambda: _many_scores(candidate, batch))
    return candidate if not why else replace(padded, why=why)


def _probe(module: PreTrainedModel) -> Batch:
    """A batch whose tokens are none of them padding."""
    config = module.config.get_text_config()
    batch = probe_batch(int(config.vocab_size), str(module.device), read_last=True)
    if config.pad_token_id is None:
        return batch
    ids = batch.input_ids
    return replace(batch, input_ids=torch.where(ids == config.pad_token_id, (ids + 1) % config.vocab_size, ids))


def _many_scores(model: ScalarModel, batch: Batch) -> Tensor:
    """Scores of about unit size by eight random heads at all tokens of the completions, [N, 8]; its own may be zero."""
    states = hidden_states(model, batch, batch.position, batch.seq).float()
    heads = torch.randn(states.shape[1], 8, generator=torch.Generator().manual_seed(0)).to(states.device)
    unit: Tensor = states / states.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit @ heads


def _is_own_head(model: ScalarModel, batch: Batch) -> bool:
    """Whether the model's own logits are our scores, with a head that is not zero."""
    ids, mask, column_of = unroll(batch)
    pad = model.module.config.get_text_config().pad_token_id
    ids = ids if pad is None else torch.where(mask == 1, ids, pad)
    head = score_head(model.module)
    positions, rows = _where(model.reads, batch)
    kept = head.weight.data
    head.weight.data = torch.linspace(-1.0, 1.0, kept.numel(), dtype=kept.dtype, device=kept.device).view_as(kept).sin()
    try:
        with torch.no_grad():
            logits = model.module(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
            own = logits if model.reads == "last" else logits[rows, column_of[rows, positions]]
            ours = apply_head(head, hidden_states(model, batch, positions, rows))
    except (TypeError, IndexError):
        return False
    finally:
        head.weight.data = kept
    own = own[:, 1] - own[:, 0] if own.shape[-1] == 2 else own.squeeze(-1)
    return own.shape == ours.shape and bool(torch.allclose(own, ours, rtol=1e-2, atol=1e-2))
