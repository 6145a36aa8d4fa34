"""The Llama-like block in few operations, for prefills and decode steps, on the model's own weights.

At one token a row most of a step through the model's modules is the calls themselves: norms of seven
operations, rotary embedding of a dozen, masks. Here a layer is about forty operations with the same
results. A model is recognised by the classes of all its parts, none of them altered, and the step is
used only once it has been compared with the model's own; otherwise the modules run.

Left out: Gemma's later generations (norms behind the blocks), fused projections (Phi), experts,
rotary embeddings whose frequencies change with the length, DoRA, quantised weights: the modules
run these. Weights are not concatenated: one product for query, key and value took as long as three.
"""

from __future__ import annotations

import functools
import logging
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.lazy import lazy_module
from strop.model.adapter import NAME as ADAPTER
from strop.model.adapter import layers_of, shaken
from strop.rollout.attention import attend_tokens
from strop.rollout.cache import Asked, Cache, Slab

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

FAMILIES = ("gemma", "llama", "mistral", "qwen2", "qwen3")
"""Families of transformers whose block this is; others may share its names and not its arithmetic."""
PARTS = ("torch.nn.modules", "transformers.activations")
"""Where the parts come from that a family does not define itself."""
STATIC_ROTARY = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that give a position the same angles whatever the length."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
"""Largest difference to the modules' step: of log-probs in nats, of keys and values in their largest."""
FEW, SOME, BLOCK = 4, 128, 1024
"""Rows up to which BLAS on CPU multiplies by a wide layer's weight faster from the left, and by a vocabulary's
in blocks of so many columns: in a half and in two thirds of the time."""
ENLARGED = 16.0
"""Final hidden states are multiplied by this for the comparison, so that a soft cap of logits shows."""

log = logging.getLogger(__name__)

Step = Callable[["Tensor", "Tensor", Cache, "Tensor | None"], "Tensor"]
"""Ids and positions of a packed row, the cache, and which places are kept (None: all) give logits."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer's weight [in, out] and bias [out]."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        if self.bias is not None:
            return torch.addmm(self.bias, x, self.weight, out=out)
        if out is None and not x.is_cuda and 1 < len(x) <= SOME:
            return _skinny(x, self.weight)
        return torch.mm(x, self.weight, out=out)

    def add_to(self, hidden: Tensor, x: Tensor) -> None:
        """Add the layer's output to the residual stream, in place."""
        if hidden.dtype != x.dtype or self.bias is not None:
            hidden.add_(self(x))
        else:
            hidden.addmm_(x, self.weight)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A linear layer under a LoRA adapter: down [in, r] is A^T, up [r, out] is s B^T."""

    base: Linear
    down: Tensor
    up: Tensor

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self.base(x, out).addmm_(torch.mm(x, self.down), self.up)

    def add_to(self, hidden: Tensor, x: Tensor) -> None:
        """As in `Linear`."""
        if hidden.dtype != x.dtype:
            hidden.add_(self(x))
        else:
            self.base.add_to(hidden, x)
            hidden.addmm_(torch.mm(x, self.down), self.up)


@dataclass(frozen=True, slots=True)
class Norm:
    """Root-mean-square norm over the last dimension, x / sqrt(mean(x^2) + eps) * weight.

    Computed as x / hypot(|x|, floor) * gain, which is fewer operations.
    Attributes: gain: sqrt(d) * weight; floor: sqrt(d * eps); both fp32.
    """

    gain: Tensor
    floor: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return wide.div(torch.hypot(length, self.floor)).mul_(self.gain)


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. head_norm: of query and key heads, its gain [H + heads, D]; None where there is none."""

    index: int
    before_attention: Norm
    query: Linear | Adapted
    key: Linear | Adapted
    value: Linear | Adapted
    head_norm: Norm | None
    out: Linear | Adapted
    before_mlp: Norm
    gate: Linear | Adapted
    up: Linear | Adapted
    down: Linear | Adapted


@dataclass(frozen=True, slots=True)
class Lean:
    """The model's step; made for one call of `sample`, since training changes the weights.

    Attributes:
        cos, sin: [positions, D] of the model's rotary embedding, sin with the rotation's sign.
        num_heads, head_dim: H of the queries, and D.
        dtype: of the products.
    """

    embed: Callable[[Tensor], Tensor]
    layers: tuple[Layer, ...]
    norm: Norm
    head: Linear
    activation: Callable[[Tensor], Tensor]
    cos: Tensor
    sin: Tensor
    num_heads: int
    head_dim: int
    dtype: torch.dtype

    def __call__(
        self, ids: Tensor, positions: Tensor, cache: Cache, keep: Tensor | None = None, enlarged: float = 1.0
    ) -> Tensor:
        """Logits [R, V] of one token a row, or of a prefill's kept places; keys and values go to the cache.

        Args: ids, positions: [tokens]; keep: [R] places; enlarged: a factor of the final hidden states.
        """
        mixed = torch.is_autocast_enabled(ids.device.type)
        with torch.autocast(ids.device.type, enabled=False) if mixed else nullcontext():
            hidden = self.embed(ids)
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
            for layer in self.layers:
                read = self._attention(layer, hidden, cos, sin, cache)
                if keep is not None and layer is self.layers[-1]:  # nothing reads the other places from here on
                    hidden, read = hidden[keep], read[keep]
                layer.out.add_to(hidden, read)
                x = layer.before_mlp(hidden).to(self.dtype)
                layer.down.add_to(hidden, self.activation(layer.gate(x)).mul_(layer.up(x)))
            x = self.norm(hidden).to(self.dtype)
            return self.head(x if enlarged == 1 else x * enlarged)

    def _attention(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor, cache: Cache) -> Tensor:
        """What the heads of one layer read, [tokens, H * D]."""
        x = layer.before_attention(hidden).to(self.dtype)
        width = layer.query.weight.shape[1]
        both = x.new_empty(len(x), width + layer.key.weight.shape[1])
        layer.query(x, out=both[:, :width])
        layer.key(x, out=both[:, width:])
        heads = both.view(len(x), -1, self.head_dim)
        if layer.head_norm is not None:
            heads = layer.head_norm(heads).to(self.dtype)
        turned = heads * cos
        turned.addcmul_(heads.roll(self.head_dim // 2, -1), sin)
        value = layer.value(x).view(len(x), -1, self.head_dim)
        out = attend_tokens(cache, layer.index, turned[:, : self.num_heads], turned[:, self.num_heads :], value)
        return out.flatten(1)


def _skinny(x: Tensor, weight: Tensor) -> Tensor:
    """x weight of a few rows, in the order that reads the weight fastest."""
    inner, width = weight.shape
    if len(x) <= FEW and width > inner:
        return torch.mm(weight.t(), x.t()).t()
    if width < 8 * BLOCK:
        return torch.mm(x, weight)
    out = x.new_empty(len(x), width)
    for start in range(0, width, BLOCK):
        columns = slice(start, min(start + BLOCK, width))
        torch.mm(x, weight[:, columns], out=out[:, columns])
    return out


def recognise(module: Any, num_positions: int) -> Lean | None:
    """The lean step of a model, or None where its modules must run.

    Args: num_positions: the longest prompt and completion together.
    """
    if not _is_plain(module):
        return None
    body, head = module.base_model, module.get_output_embeddings()
    weight = body.embed_tokens.weight
    device, dtype = weight.device, weight.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    attention = body.layers[0].self_attn
    head_dim = attention.head_dim
    if _name(dtype) not in TOLERANCE or body.rotary_emb.rope_type not in STATIC_ROTARY:
        return None
    cos, sin = body.rotary_emb(weight.new_empty(1), torch.arange(max(num_positions, 8), device=device)[None])
    if cos.shape[-1] != head_dim or any(t.dtype != weight.dtype or t.device != device for t in _weights(module)):
        return None
    half = head_dim // 2
    activation = body.layers[0].mlp.act_fn
    if type(activation).__name__ in ("SiLU", "SiLUActivation"):
        activation = functools.partial(torch.nn.functional.silu, inplace=True)
    return Lean(
        embed=body.embed_tokens,
        layers=tuple(_layer(layer, dtype) for layer in body.layers),
        norm=_norm(body.norm),
        head=_plain(head, dtype),
        activation=activation,
        cos=cos[0].to(dtype),
        sin=torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1).to(dtype),
        num_heads=attention.q_proj.out_features // head_dim,
        head_dim=head_dim,
        dtype=dtype,
    )


def _is_plain(module: Any) -> bool:
    """Whether every part is of a known class and runs that class's own forward, without hooks."""
    source = type(module).__module__
    if source not in [f"transformers.models.{name}.modeling_{name}" for name in FAMILIES]:
        return False
    adapted = layers_of(module)
    if not all(_is_low_rank(layer) for layer in adapted.values()):
        return False
    layers_only = {id(layer) for layer in adapted.values()}
    for part in module.modules():
        known = type(part).__module__
        if known != source and not known.startswith(PARTS) and id(part) not in layers_only:
            return False
        forward = vars(part).get("forward")
        altered = forward is not None and not forward.__module__.startswith("strop.model.")  # ours compute the same
        if altered or part._forward_hooks or part._forward_pre_hooks:
            return False
    layers = module.base_model.layers
    named = [(name, part) for layer in layers for name, part in layer.named_modules() if name.endswith("_proj")]
    linear = [part.get_base_layer() if id(part) in layers_only else part for _, part in named]
    types = {type(p) for p in (*linear, module.get_output_embeddings())}
    return len(layers) == module.config.num_hidden_layers and types == {torch.nn.Linear}


def _is_low_rank(layer: Any) -> bool:
    """Whether an adapted layer computes W x + s B A x and nothing else, now."""
    plain = type(layer).__name__ == "Linear" and list(layer.lora_A) == list(layer.active_adapters) == [ADAPTER]
    return plain and not (layer.lora_variant or layer.merged or layer.disable_adapters or layer.lora_bias[ADAPTER])


def _weights(module: Any) -> Iterator[Tensor]:
    """The module's own parameters, without an adapter's."""
    return (p for name, p in module.named_parameters() if ".lora_" not in name)


def _layer(layer: Any, dtype: torch.dtype) -> Layer:
    own, mlp = layer.self_attn, layer.mlp
    norm = None
    if "q_norm" in dict(own.named_children()):
        pairs = ((_norm(own.q_norm), own.q_proj), (_norm(own.k_norm), own.k_proj))
        counts = [proj.out_features // own.head_dim for _, proj in pairs]
        gains = [n.gain.expand(count, -1) for (n, _), count in zip(pairs, counts, strict=True)]
        floors = [n.floor.expand(count, 1) for (n, _), count in zip(pairs, counts, strict=True)]
        norm = Norm(torch.cat(gains), torch.cat(floors))
    return Layer(
        index=own.layer_idx,
        before_attention=_norm(layer.input_layernorm),
        query=_linear(own.q_proj, dtype),
        key=_linear(own.k_proj, dtype),
        value=_linear(own.v_proj, dtype),
        head_norm=norm,
        out=_linear(own.o_proj, dtype),
        before_mlp=_norm(layer.post_attention_layernorm),
        gate=_linear(mlp.gate_proj, dtype),
        up=_linear(mlp.up_proj, dtype),
        down=_linear(mlp.down_proj, dtype),
    )


def _linear(module: Any, dtype: torch.dtype) -> Linear | Adapted:
    if type(module) is torch.nn.Linear:
        return _plain(module, dtype)
    a, b = (matrices[ADAPTER].weight.detach() for matrices in (module.lora_A, module.lora_B))
    up = (b.t() * module.scaling[ADAPTER]).to(dtype)
    return Adapted(_plain(module.get_base_layer(), dtype), a.t().to(dtype), up)


def _plain(module: Any, dtype: torch.dtype) -> Linear:
    bias = None if module.bias is None else module.bias.detach().to(dtype)
    return Linear(module.weight.detach().t().to(dtype), bias)


def _norm(module: Any) -> Norm:
    """The norm, its weight read from what it does to ones: some families store weight - 1."""
    names = [name for name in ("variance_epsilon", "eps") if name in vars(module)]
    eps, width = float(vars(module)[names[0]]), len(module.weight)
    size = 1024.0  # so large that eps vanishes, and a power of two, whose norm is exact
    weight = module(torch.full_like(module.weight, size)).detach().float()
    return Norm(weight * math.sqrt(width), torch.full_like(weight[:1], math.sqrt(width * eps)))


_agreed: weakref.WeakKeyDictionary[Any, dict[tuple[object, ...], dict[int, Asked] | None]] = weakref.WeakKeyDictionary()
"""For each model and kind of step what its layers ask of attention; None where the lean step differs."""


def fastest(module: Any, modules: Step, cache: Cache, num_positions: int) -> Step:
    """The lean step where the model is recognised and does the same; otherwise the model's own.

    The comparison is made once a model and kind of step: training changes weights, not arithmetic.
    Args: modules: the model's own step, through its modules; num_positions: as in `recognise`.
    """
    lean = recognise(module, num_positions)
    if lean is None:
        return modules
    known = _agreed.setdefault(module, {})
    kind = (lean.dtype, cache.device, len(lean.layers), bool(layers_of(module)))
    if kind not in known:
        with shaken(module):  # a fresh adapter adds nothing yet, so that it could not be seen to be right
            compared = recognise(module, num_positions)
            assert compared is not None
            asked, error = _compare(module, modules, compared, cache.device)
        if not math.isfinite(error):
            return modules  # says nothing about the step: drawing from such logits is refused
        same = error <= TOLERANCE[_name(lean.dtype)]
        known[kind] = asked if same else None
        if not same:
            name = type(module).__name__
            log.warning("%s: the lean decode step is off by %.2g; sampling runs its modules, slower", name, error)
    asked_by_layer = known[kind]
    if asked_by_layer is None:
        return modules
    cache.asked.update(asked_by_layer)
    return lean


def _compare(module: Any, modules: Step, lean: Lean, device: torch.device) -> tuple[dict[int, Asked], float]:
    """What the layers ask of attention, and how far the lean step is off on a few tokens.

    Two prompts are prefilled, the second at the last positions, and two rows of the first and one
    of the second take a step, each way on a cache of its own. The error is the largest in log-probs
    at enlarged hidden states, and in the keys and values of each layer relative to their largest.
    """
    lengths, slot = (7, 5), np.array([0, 0, 1])
    ids = torch.arange(1, 16, device=device) * 7919 % lean.head.weight.shape[1]
    end = len(lean.cos)
    positions = torch.tensor([*range(7), *range(end - 6, end - 1), 7, 7, end - 1], device=device)
    last = torch.tensor([6, 11], device=device)
    caches = [Cache(Slab(2, 7), Slab(3, 4), device) for _ in range(2)]
    logprobs = []
    steps: tuple[Step, Step] = modules, functools.partial(lean, enlarged=ENLARGED)
    for cache, step in zip(caches, steps, strict=True):
        cache.asked.update(caches[0].asked)
        with _enlarged(module.base_model.norm) if step is modules else nullcontext():
            cache.begin_prompts(lengths)
            first = step(ids[:12], positions[:12], cache, last)
            cache.add_rows(np.arange(3), slot)
            cache.next_column()
            second = step(ids[12:], positions[12:], cache, None)
        logprobs.append(torch.cat([first, second]).float().log_softmax(-1))
    errors = [(logprobs[0] - logprobs[1]).abs().max() / ENLARGED]
    for mine, theirs in ((caches[0].prompts, caches[1].prompts), (caches[0].own, caches[1].own)):
        for layer, pair in mine.layers.items():
            for want, got in zip(pair, theirs.layers[layer], strict=True):
                errors.append((want.float() - got.float()).abs().max() / want.float().abs().max().clamp(min=1e-30))
    return caches[0].asked, float(torch.stack(errors).max())


@contextmanager
def _enlarged(norm: Any) -> Iterator[None]:
    """Multiply a module's output by `ENLARGED` until the block ends."""
    handle = norm.register_forward_hook(lambda _module, _inputs, output: output * ENLARGED)
    try:
        yield
    finally:
        handle.remove()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
