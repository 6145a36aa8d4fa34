"""Adapters in files: saved beside the model they belong to, read back, and folded into it.

An adapter's folder is peft's: adapter_config.json, which names the base model, and
adapter_model.safetensors. What leaves a stage is an ordinary model folder with the adapter folded in,
so that nothing after it needs to know of adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from strop.model import attention
from strop.model.adapter import NAME, LoRA, attach, find_targets, inject, is_adapter, layers_of, peft, read_config

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of a wrapped model's tensors."""
AGREE = {"plain": 1e-3, "quantised": 0.1}
"""Largest difference in a logit that folding may make, in units of the largest logit (at least 1)."""


def adapted(
    module: Any, path: str, settings: LoRA | None, *, seed: int, kind: torch.dtype, heads: Collection[str] = ()
) -> Any:
    """A base model with what its path and the settings say of adapters: none, a fresh one, or the path's own.

    Args: path: what was asked for, an adapter's folder or the base model; kind: of the plain weights, where
        the path's adapter is folded in; heads: as in `attach`.
    """
    if not is_adapter(path):
        if settings is not None:
            attach(module, settings, seed, heads)
        return module
    if settings is None:
        return folded(module.float(), path).to(kind)
    restore(module, path, settings, heads)
    return module


def save_adapter(module: Any, folder: Path, base: str) -> None:
    """The adapter as a folder that peft loads onto the base; heads trained in full go with it."""
    config = copy.copy(module.peft_config[NAME])
    heads = _heads(module)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.modules_to_save = sorted({name.rpartition(".")[0] for name in heads}) or None
    found = peft().get_peft_model_state_dict(module, adapter_name=NAME, save_embedding_layers=False)
    tensors = {PREFIX + name: t.detach().cpu().contiguous() for name, t in {**found, **heads}.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(folder)


def restore(module: Any, path: str, settings: LoRA, heads: Collection[str] = ()) -> None:
    """Put a saved adapter into its base model, to be trained on, with what heads were saved beside it.

    Raises: ValueError if it is none that these settings could have made, or does not fit the model.
    """
    saved = read_config(path)
    _check_same(path, saved, module, settings)
    config = peft().LoraConfig.from_pretrained(path)
    config.lora_dropout, config.inference_mode, config.modules_to_save = 0.0, False, None
    tensors = {name.removeprefix(PREFIX): t for name, t in _tensors(path).items()}
    low = {name: t for name, t in tensors.items() if ".lora_" in name}
    own = dict(module.named_parameters())
    full = [name for name in tensors if name not in low]
    for name in full:
        if name not in own or own[name].shape != tensors[name].shape:
            raise ValueError(f"{path}: it holds {name} {list(tensors[name].shape)}, which does not fit the base model")
    inject(module, config, {*heads, *(name.rpartition(".")[0] for name in full)})
    for name in full:
        own[name].data.copy_(tensors[name])
    try:
        result = peft().set_peft_model_state_dict(module, low, adapter_name=NAME)
    except RuntimeError as error:
        raise ValueError(f"{path}: the adapter does not fit its base model: {_line(error)}") from error
    odd = [*(name for name in result.missing_keys if ".lora_" in name), *result.unexpected_keys]
    if odd:
        raise ValueError(f"{path}: its weights and its config do not belong together ({odd[0]})")


def folded(module: Any, path: str) -> Any:
    """The base model with a saved adapter of any of peft's kinds folded in, as a plain model.

    The base should be in fp32: bf16 would round most of an adapter's change away.
    Raises: ValueError if it does not fit.
    """
    try:
        config = peft().PeftConfig.from_pretrained(path)
        config.task_type = None  # it says which class wraps the base, and a trunk may have another head by now
        wrapped = peft().PeftModel.from_pretrained(module, path, config=config)
        plain = wrapped.merge_and_unload(safe_merge=True)
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: the adapter does not fit its base model: {_line(error)}") from error
    _forget(plain)
    return plain.requires_grad_(True)


def merge(module: Any) -> float:
    """Fold the adapter into the weights, in place and in fp32, leaving a plain module.

    Returns: the largest difference in a logit between before and after, on a few random tokens, computed in fp32.
    Raises: RuntimeError if that is more than rounding.
    """
    layers = layers_of(module)
    assert layers, "there is no adapter to merge"
    quantised = any(type(layer.get_base_layer()).__name__ == "Linear4bit" for layer in layers.values())
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()
        before = _logits(module)
        for name, layer in layers.items():
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, _plain(layer))
        _forget(module)
        after = _logits(module)
    worst = float((after - before).abs().max())
    limit = AGREE["quantised" if quantised else "plain"] * max(1.0, float(before.abs().max()))
    if not worst <= limit:
        raise RuntimeError(
            f"folding the adapter into the model changed a logit by {worst:.2g}, more than {limit:.2g}; the adapter "
            "itself was saved beside it and is sound"
        )
    return worst


def _plain(layer: Any) -> torch.nn.Module:
    """The base layer with W + s B A (DoRA: its scaled rows) as its weight."""
    base: Any = layer.get_base_layer()
    if type(base).__name__ != "Linear4bit":
        layer.merge(safe_merge=True)
        plain: torch.nn.Module = base
        return plain
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(base).float() + layer.get_delta_weight(NAME)
    out = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=base.bias is not None, device=weight.device)
    out.weight.copy_(weight)
    if base.bias is not None:
        out.bias.copy_(base.bias)
    return out


def _forget(module: Any) -> None:
    """Remove what peft and the quantiser left on a module that now has neither."""
    vars(module).pop("peft_config", None)
    quantizer = getattr(module, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(module)


def _logits(module: Any) -> Tensor:
    """The stock model's answer to a few random tokens."""
    vocab = int(module.config.get_text_config().vocab_size)
    ids = torch.randint(vocab, (1, 32), generator=torch.Generator().manual_seed(0)).to(module.device)
    with _stock(module):
        logits: Tensor = module(input_ids=ids, use_cache=False).logits.float()
    return logits


@contextmanager
def _stock(module: Any) -> Iterator[None]:
    """Let attention be transformers' own until the block ends."""
    name = module.config._attn_implementation
    if name != attention.NAME:
        yield
        return
    module.set_attn_implementation("eager")
    try:
        yield
    finally:
        module.set_attn_implementation(name)


def _heads(module: Any) -> dict[str, Tensor]:
    """Parameters that train, belong to no adapted layer, and are part of what the module saves."""
    inside = {id(p) for layer in layers_of(module).values() for p in layer.parameters()}
    unsaved = set(module._keys_to_ignore_on_save or ())
    named = {name: p for name, p in module.named_parameters() if name not in unsaved}
    return {name: p for name, p in named.items() if p.requires_grad and id(p) not in inside}


def _check_same(path: str, saved: Mapping[str, Any], module: Any, settings: LoRA) -> None:
    """Training goes on with the adapter's own settings, so the stage must say the same."""
    if saved.get("peft_type") != "LORA":
        raise ValueError(f"{path}: a {saved.get('peft_type')} adapter cannot be trained on here, only LORA")
    shared = {"r": "r", "lora_alpha": "alpha", "use_dora": "use_dora", "use_rslora": "use_rslora"}
    for theirs, ours in shared.items():
        value = getattr(settings, ours)
        if saved.get(theirs, value) != value:
            raise ValueError(
                f"{path}: it was made with {ours}={saved[theirs]}, the stage says {value}; "
                f"set adapter.{ours}={saved[theirs]}, or adapter=null to fold it in and train all weights"
            )
    odd = [k for k in ("rank_pattern", "alpha_pattern", "layers_to_transform", "target_parameters") if saved.get(k)]
    if odd:
        raise ValueError(f"{path}: its {odd[0]} cannot be trained on here; set adapter=null to fold it in")
    targets = saved.get("target_modules")
    if not isinstance(targets, list) or find_targets(module, tuple(targets)) != find_targets(module, settings.targets):
        said = ", ".join(sorted(targets)) if isinstance(targets, list) else targets
        raise ValueError(f"{path}: it adapts {said}; set adapter.targets to the same, or adapter=null to fold it in")


def _tensors(path: str) -> dict[str, Tensor]:
    try:
        return load_file(Path(path) / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{Path(path) / WEIGHTS} cannot be read: {error}") from error


def _line(error: BaseException) -> str:
    """What an error of torch says first of a tensor, else what it says first."""
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    return next((line for line in lines if "mismatch" in line), lines[0])
