"""Loading stock models, and choosing by a probe how each is run.

At load a tiny forest of random tokens goes through the packed path and the padded one; the packed
path is used where they agree, and otherwise the reason is said and the padded path taken.
Left out: quantised weights other than an adapter's frozen ones, models split over devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging as transformers_logging

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.data.pack import pack
from strop.model import attention
from strop.model.adapter import LoRA, base_of, is_adapter, require, shaken
from strop.model.adapter_files import adapted
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
    adapter: LoRA | None = None,
    say: Callable[[str], None] = print,
) -> LanguageModel:
    """The causal language model of a folder or hub name, ready to train or to score.

    A folder that holds a config and no weights gives random weights, a function of `seed`. A
    trainable model in bf16 keeps fp32 weights and computes under autocast: at the learning rates
    of preference training most updates are smaller than bf16 can add. With an adapter only its
    weights are fp32, since the others stay as they are. An adapter's folder is its base model with
    the adapter folded in, or beside it where it is to be trained on.
    Raises: ValueError naming the path where there is no model.
    """
    computed, base = dtype(device, precision), base_of(path)
    if adapter is not None:
        require(adapter, device)
    kind = weights_dtype(computed, trainable, adapter)
    try:
        if has_weights(base):
            quantize = quantization(adapter, computed, device)
            module = read_weights(AutoModelForCausalLM, base, kind, trust_remote_code, quantize=quantize)
        else:
            say(f"{base} has a config and no weights: starting from random weights (seed {seed})")
            config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = AutoModelForCausalLM.from_config(config, dtype=kind, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load a causal language model from {base!r}: {first_line(error)}") from error
    module = adapted(module, path, adapter, seed=seed, kind=kind)
    with shaken(module):
        model = prepare(on_device(module, device), gradient_checkpointing=gradient_checkpointing, say=say)
    return model if not trainable or computed == torch.float32 else replace(model, autocast=computed)


def weights_dtype(computed: torch.dtype, trainable: bool, adapter: LoRA | None) -> torch.dtype:
    """What a model's own weights are kept in: fp32 where they are trained."""
    return torch.float32 if trainable and adapter is None else computed


def quantization(adapter: LoRA | None, computed: torch.dtype, device: str) -> dict[str, Any]:
    """What transformers' loader is told to keep weights in 4 bits; nothing where they are not."""
    if adapter is None or adapter.quantize is None:
        return {}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def on_device(module: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on its device; 4-bit weights are there since they were read."""
    return module if getattr(module, "is_quantized", False) else module.to(device)


def read_weights(
    auto: Any,
    path: str,
    kind: torch.dtype,
    trust_remote_code: bool,
    *,
    config: PreTrainedConfig | None = None,
    fresh: tuple[str, ...] = (),
    quantize: Mapping[str, Any] = MappingProxyType({}),
) -> PreTrainedModel:
    """The model with its weights, all of them: transformers would draw what is missing at random.

    Args: auto: the Auto class; config: instead of the folder's; fresh: weights whose names begin so may be missing;
        quantize: of `quantization`.
    """
    module, found = auto.from_pretrained(
        path,
        dtype=kind,
        config=config,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # we say which, below
        **quantize,
    )
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        raise ValueError(
            f"{name}: {list(saved)} in the file, {list(wanted)} by the config; they do not belong together"
        )
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(fresh))
    if missing:
        raise ValueError(f"no {missing[0]} in the files ({len(missing)} weights are missing)")
    model: PreTrainedModel = module
    return model


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model; of an adapter's folder without one, its base model's.

    Raises: ValueError where there is none.
    """
    if is_adapter(path) and not (Path(path) / "tokenizer_config.json").is_file():
        path = base_of(path)
    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot load a tokenizer from {path!r}: {first_line(error)}. Save the tokenizer in the model's folder."
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
    batch = probe_batch(int(module.config.get_text_config().vocab_size), str(module.device))
    if not _plain_head(module, batch):
        return LanguageModel(module, path="padded", plain_head=False, why="its output head is not plain; it is padded")
    candidate = LanguageModel(module, tail=find_tail(module))
    padded = LanguageModel(module, path="padded")
    why = share_prefixes(
        module, "log-probs", lambda: forward(padded, batch).logprobs, lambda: forward(candidate, batch).logprobs
    )
    return candidate if not why else replace(padded, why=why)


def share_prefixes(
    module: PreTrainedModel, what: str, padded: Callable[[], torch.Tensor], packed: Callable[[], torch.Tensor]
) -> str:
    """Switch to shared-prefix attention where it gives the padded path's numbers; otherwise why not.

    Args: what: what the numbers are; padded, packed: compute them by either path.
    """
    own = module.config._attn_implementation
    with torch.no_grad():
        want = padded()
        try:
            module.set_attn_implementation(attention.NAME)
            if module.config._attn_implementation != attention.NAME:
                raise NotImplementedError("it does not take its attention from transformers' interface")
            worked = float((packed() - want).abs().max()) <= PROBE_TOLERANCE.get(module.dtype, 0.15)
            why = f"packed and padded {what} differ"
        except (NotImplementedError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            worked, why = False, first_line(error)
    if worked:
        return ""
    module.set_attn_implementation(own)
    return f"no shared-prefix attention ({why}); prompts are padded and repeated"


def _plain_head(module: PreTrainedModel, batch: Batch) -> bool:
    """Whether logits are hidden states times the output embedding, also for large hidden states.

    Hidden states are enlarged on the way, so that a soft cap shows; a scale or a bias shows anyhow.
    """
    seen: list[torch.Tensor] = []

    def enlarge(_module: torch.nn.Module, _inputs: object, outputs: BaseModelOutputWithPast) -> BaseModelOutputWithPast:
        outputs.last_hidden_state = outputs.last_hidden_state * 100
        seen.append(outputs.last_hidden_state)
        return outputs

    ids, mask, _ = unroll(batch)
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


def probe_batch(vocab_size: int, device: str, *, read_last: bool = False) -> Batch:
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
    return pack(groups, max_tokens=1 << 20, device=device, read_last=read_last).batches[0]


def has_weights(path: str) -> bool:
    """Whether a folder holds weights; a hub name, and a folder that is no model, are left to the loader."""
    folder = Path(path)
    if not folder.is_dir():
        return True  # a hub name: from_pretrained decides
    patterns = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    return any(any(folder.glob(pattern)) for pattern in patterns) or not (folder / "config.json").exists()


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
