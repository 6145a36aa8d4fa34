"""Loading stock models, and choosing by a probe how each is run.

At load a tiny forest of random tokens goes through the packed path and the padded one; the packed
path is used where they agree, and otherwise the reason is said and the padded path taken.
Left out: quantised weights, models split over devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging as transformers_logging

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.model import attention
from strop.model.forward import LanguageModel, forward, unroll
from strop.model.norms import fuse_norms
from strop.model.tail import find_tail

Precision = Literal["auto", "fp32", "bf16"]

transformers_logging.disable_progress_bar()  # they would tear our own display

PROBE_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.15}
"""Largest difference in a log-prob (nats) that packed and padded may show on random weights."""


def load(
    path: str,
    *,
    device: str = "cpu",
    precision: Precision = "auto",
    seed: int = 0,
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    trainable: bool = False,
    say: Callable[[str], None] = print,
) -> LanguageModel:
    """The causal language model of a folder or hub name, ready to train or to score.

    A folder that holds a config and no weights gives random weights, a function of `seed`. A
    trainable model in bf16 keeps fp32 weights and computes under autocast: at the learning rates
    of preference training most updates are smaller than bf16 can add.
    Raises: ValueError naming the path where there is no model.
    """
    computed = dtype(device, precision)
    kind = torch.float32 if trainable else computed
    try:
        if _has_weights(path):
            module = _read(path, kind, trust_remote_code)
        else:
            say(f"{path} has a config and no weights: starting from random weights (seed {seed})")
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load a causal language model from {path!r}: {_first_line(error)}") from error
    model = prepare(module.to(device), gradient_checkpointing=gradient_checkpointing, say=say)
    return model if computed == kind else replace(model, autocast=computed)


def _read(path: str, kind: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """The model with its weights, all of them: transformers would draw what is missing at random."""
    module, found = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=kind,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # we say which, below
    )
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        raise ValueError(
            f"{name}: {list(saved)} in the file, {list(wanted)} by the config; they do not belong together"
        )
    for name in sorted(found["missing_keys"]):
        raise ValueError(f"no {name} in the files ({len(found['missing_keys'])} weights are missing)")
    model: PreTrainedModel = module
    return model


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model.

    Raises: ValueError where there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot load a tokenizer from {path!r}: {_first_line(error)}. Save the tokenizer in the model's folder."
        ) from error
    return tokenizer


def prepare(
    module: PreTrainedModel, *, gradient_checkpointing: bool = False, say: Callable[[str], None] = print
) -> LanguageModel:
    """Turn dropout off, choose the path by the probe, and switch checkpointing on where asked."""
    disable_dropout(module)
    if module.device.type == "cpu":
        fuse_norms(module)
    model = choose_path(module)
    if model.why:
        say(f"{type(module).__name__}: {model.why}")
    module.train()  # only so that gradient checkpointing, which transformers ties to it, can act
    if gradient_checkpointing:  # layers run again in the backward, when the rows are no longer known
        model = replace(model, tail=None)
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def dtype(device: str, precision: Precision) -> torch.dtype:
    """bf16 where the device is fast at it, fp32 elsewhere, unless told."""
    if precision == "auto":
        return torch.bfloat16 if device.startswith("cuda") and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def choose_device(device: str) -> str:
    """cuda where there is one, for `auto`; otherwise the device named."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch sees no GPU; use device=cpu or device=auto")
    return device


def disable_dropout(module: PreTrainedModel) -> None:
    """Log-probs of two forwards are compared, so nothing may be dropped (or jittered) at random.

    Some families keep their rates as numbers of a layer (Bloom, OPT) or read them from the config
    as they run (Falcon); the config that is saved with the trained model says 0 then, too.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.modules.dropout._DropoutNd):
            part.p = 0.0
        _zero_rates(part)
        if isinstance(part, PreTrainedModel):
            _zero_rates(part.config)


def _zero_rates(owner: object) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, float) and ("drop" in name or "jitter" in name):
            setattr(owner, name, 0.0)


def choose_path(module: PreTrainedModel) -> LanguageModel:
    """Compare the plain head with the model's own, and a tiny packed forest with the padded path."""
    batch = _probe_batch(int(module.config.get_text_config().vocab_size), str(module.device))
    if not _plain_head(module, batch):
        return LanguageModel(module, path="padded", plain_head=False, why="its output head is not plain; it is padded")
    own = module.config._attn_implementation
    candidate = LanguageModel(module, tail=find_tail(module))
    with torch.no_grad():
        want = forward(LanguageModel(module, path="padded"), batch).logprobs
        try:
            module.set_attn_implementation(attention.NAME)
            if module.config._attn_implementation != attention.NAME:
                raise NotImplementedError("it does not take its attention from transformers' interface")
            got = forward(candidate, batch).logprobs
            worked = float((got - want).abs().max()) <= PROBE_TOLERANCE.get(module.dtype, 0.15)
            why = "packed and padded log-probs differ"
        except (NotImplementedError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            worked, why = False, _first_line(error)
    if worked:
        return candidate
    module.set_attn_implementation(own)
    return replace(
        candidate, path="padded", tail=None, why=f"no shared-prefix attention ({why}); prompts are padded and repeated"
    )


def _plain_head(module: PreTrainedModel, batch: Batch) -> bool:
    """Whether logits are hidden states times the output embedding, also for large hidden states.

    Hidden states are enlarged on the way, so that a soft cap shows; a scale or a bias shows anyhow.
    """
    seen: list[torch.Tensor] = []

    def enlarge(_module: torch.nn.Module, _inputs: object, outputs: BaseModelOutputWithPast) -> BaseModelOutputWithPast:
        outputs.last_hidden_state = outputs.last_hidden_state * 100
        seen.append(outputs.last_hidden_state)
        return outputs

    ids, mask, _, _ = unroll(batch)
    hook = module.base_model.register_forward_hook(enlarge)
    try:
        with torch.no_grad():
            logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
            if not seen:
                return False  # its forward passes by the backbone's own (OPT)
            want = torch.nn.functional.linear(seen[0], module.get_output_embeddings().weight).float()
    finally:
        hook.remove()
    return logits.shape == want.shape and bool(torch.allclose(logits, want, rtol=1e-2, atol=1e-3))


def _probe_batch(vocab_size: int, device: str) -> Batch:
    """Two groups with a shared prompt, one of them with a deeper shared stem."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocab_size, (length,), generator=generator).tolist())

    def sequence(tokens: tuple[int, ...]) -> EncodedSequence:
        return EncodedSequence(tokens, (True,) * len(tokens))

    stem = ids(33)
    groups = [
        EncodedGroup(ids(7), (sequence(ids(5)), sequence(ids(3)))),
        EncodedGroup(ids(4), (sequence(stem + ids(4)), sequence(stem + ids(6)), sequence(ids(2)))),
    ]
    return pack(groups, max_tokens=1 << 20, device=device).batches[0]


def _has_weights(path: str) -> bool:
    folder = Path(path)
    if not folder.is_dir():
        return True  # a hub name: from_pretrained decides
    patterns = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    return any(any(folder.glob(pattern)) for pattern in patterns) or not (folder / "config.json").exists()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
