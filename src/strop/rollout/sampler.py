"""Samples completions in process from a transformers model's own modules, at its current weights.

Each prompt is prefilled once and its keys and values are shared by its rows; finished rows are
dropped and waiting prompts take their places; the log-probs come from the numbers that were sampled
from. A row's tokens depend on (seed, step, its index) and the weights, not on its batch-mates.

Left out: speculative decoding, graphs and compiled steps, beams, more than one device.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from strop.lazy import lazy_module
from strop.rollout.attention import attend
from strop.rollout.cache import Cache, Slab
from strop.rollout.draw import Draws
from strop.rollout.lean import Step, fastest
from strop.rollout.padded import decode_padded
from strop.rollout.transcript import Ints, Sampled, Stop, Transcript

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from strop.model import decode as model_decode
else:
    torch = lazy_module("torch")
    model_decode = lazy_module("strop.model.decode")

__all__ = ["Sampled", "sample"]

ROWS = 256
"""Rows decoded side by side when the caller does not say."""
REFILL = 8
"""New prompts start once a share of 1 / REFILL of the rows is free, so that prefills are not tiny."""
PREFILL_TOKENS = 4096
"""Prompt tokens one prefill call packs at most (one prompt may be longer)."""

log = logging.getLogger(__name__)


def sample(
    module: Any,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    step: int,
    stop_ids: frozenset[int],
    stop_strings: Sequence[str] = (),
    decode: Callable[[Sequence[int]], str] | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    rows: int | None = None,
    first_index: int = 0,
    path: Literal["shared", "padded"] = "shared",
) -> list[list[Sampled]]:
    """Completions of each prompt with their log-probs, `num_samples` a prompt.

    Args:
        module: a transformers causal language model; its mode and attention are put back afterwards.
        prompts: token ids, none empty.
        max_new_tokens: length limit of a completion.
        temperature: 0 takes the likeliest token (log-probs then at temperature 1).
        seed, step: sample j of prompt i is f(seed, step, first_index + i * num_samples + j).
        stop_ids: tokens that end a completion; kept in its ids.
        stop_strings: texts that end a completion once `decode(ids)` contains one; kept.
        top_k, top_p: draw from the likeliest only; log-probs remain those of the whole distribution.
        rows: completions decoded side by side; changes speed and memory, not results.
        path: "shared" computes each prompt once, through transformers' attention interface;
            "padded" is the slower loop for models without it.
    Returns: for each prompt its samples; log-probs of softmax(logits / temperature), fp32, nats.
    Raises: ValueError for an empty prompt, a setting out of range, logits that are not finite, or a
        model that needs the other path.
    """
    _check(prompts, num_samples, max_new_tokens, temperature, top_k, top_p, rows, stop_strings, decode)
    if not prompts:
        return []
    stop = Stop(stop_ids, tuple(stop_strings), decode, max_new_tokens)
    transcript = Transcript.empty(len(prompts) * num_samples, stop)
    numbers = np.empty((len(prompts) * num_samples, max_new_tokens))
    draws = Draws(temperature, top_k, top_p, seed, step, first_index, numbers)
    with _sampling(module):
        if path == "shared":
            with model_decode.attending(module, attend):
                _decode_shared(module, prompts, num_samples, rows or ROWS, draws, transcript)
        else:
            log.warning("sampling on the padded path: each row prefills its own prompt, which is slower")
            decode_padded(module, prompts, num_samples, rows or ROWS, draws, transcript)
    return [[transcript.sampled(i * num_samples + j) for j in range(num_samples)] for i in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Samples that are started together: some or all of one prompt's rows."""

    prompt: Sequence[int]
    rows: range


def _decode_shared(
    module: Any, prompts: Sequence[Sequence[int]], num_samples: int, num_rows: int, draws: Draws, transcript: Transcript
) -> None:
    """Fill the transcript: start prompts while rows are free, step all live rows, drop the finished."""
    device = module.get_input_embeddings().weight.device
    waiting = _units(prompts, num_samples, num_rows)
    num_rows = min(num_rows, len(prompts) * num_samples)
    longest = max(map(len, prompts))
    num_prompts = -(-num_rows // min(num_samples, num_rows))
    cache = Cache(Slab(num_prompts, longest), Slab(num_rows, min(64, transcript.stop.max_new_tokens)), device)
    modules = functools.partial(_through_modules, module)
    step = fastest(module, modules, cache, longest + transcript.stop.max_new_tokens)
    ids = np.zeros(0, np.int64)
    while waiting or len(ids):
        free = num_rows - len(ids)
        if waiting and free >= max(len(waiting[-1].rows), num_rows // REFILL):
            ids = np.concatenate([ids, _start(step, _take(waiting, free), cache, draws, transcript)])
            ids = ids[cache.drop_rows(transcript.finished(cache.row))]
        else:
            ids = _next(step, ids, cache, draws, transcript)


def _units(prompts: Sequence[Sequence[int]], num_samples: int, num_rows: int) -> list[_Unit]:
    """What waits to be started, the longest prompt last: taken first, beside others of its length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    units = []
    for i in order:
        rows = range(i * num_samples, (i + 1) * num_samples)
        units += [_Unit(prompts[i], rows[j : j + num_rows]) for j in range(0, num_samples, num_rows)]
    return units


def _take(waiting: list[_Unit], free: int) -> list[_Unit]:
    """Remove what fits into the free rows and into one prefill."""
    taken = [waiting.pop()]
    free -= len(taken[0].rows)
    room = PREFILL_TOKENS - len(taken[0].prompt)
    while waiting and len(waiting[-1].rows) <= free and len(waiting[-1].prompt) <= room:
        taken.append(waiting.pop())
        free -= len(taken[-1].rows)
        room -= len(taken[-1].prompt)
    return taken


def _start(step: Step, units: list[_Unit], cache: Cache, draws: Draws, transcript: Transcript) -> Ints:
    """Prefill prompts as one packed row, and draw the first token of each of their rows."""
    lengths = [len(unit.prompt) for unit in units]
    first = cache.begin_prompts(lengths)
    ids = np.concatenate([np.array(unit.prompt, np.int64) for unit in units])
    positions = np.concatenate([np.arange(n) for n in lengths])
    inputs = (torch.from_numpy(array).to(cache.device) for array in (ids, positions, np.cumsum(lengths) - 1))
    logits = step(next(inputs), next(inputs), cache, next(inputs))
    rows = np.concatenate([np.array(unit.rows, np.int64) for unit in units])
    owner = np.repeat(np.arange(len(units)), [len(unit.rows) for unit in units])
    new, logprobs = draws(logits, rows, transcript.length[rows], torch.from_numpy(owner).to(cache.device))
    transcript.write(rows, new, logprobs)
    cache.add_rows(rows, first + owner)
    return new


def _next(step: Step, ids: Ints, cache: Cache, draws: Draws, transcript: Transcript) -> Ints:
    """Feed each live row's newest token and draw its next; returns the next tokens of rows still live."""
    fed, positions = (torch.from_numpy(array).to(cache.device) for array in (ids, cache.next_column()))
    new, logprobs = draws(step(fed, positions, cache, None), cache.row, transcript.length[cache.row])
    done = transcript.write(cache.row, new, logprobs)
    return new[cache.drop_rows(done)] if done.any() else new


def _through_modules(module: Any, ids: Tensor, positions: Tensor, cache: Cache, keep: Tensor | None) -> Tensor:
    """The model's own step: logits of a packed row at the kept places, [places, V]."""
    out = module(
        input_ids=ids[None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=0 if keep is None else keep,
        rollout_cache=cache,
    )
    logits: Tensor = out.logits[0]
    return logits


@contextmanager
def _sampling(module: Any) -> Iterator[None]:
    """Evaluation mode and no autograd until the block ends; every submodule's mode is put back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for m, training in modes:
            m.training = training


def _check(
    prompts: Sequence[Sequence[int]],
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    rows: int | None,
    stop_strings: Sequence[str],
    decode: Callable[[Sequence[int]], str] | None,
) -> None:
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(f"prompts[{i}] is empty, so nothing predicts its first token; give it a start token")
    least_one = {"num_samples": num_samples, "max_new_tokens": max_new_tokens, "top_k": top_k, "rows": rows}
    for name, value in least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if temperature < 0:
        raise ValueError(f"temperature={temperature} must not be negative; 0 takes the likeliest token")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")
    if "" in stop_strings:
        raise ValueError("stop_strings holds an empty text, which every completion contains; remove it")
    if stop_strings and decode is None:
        raise ValueError("stop_strings needs decode, from token ids to text; pass the tokenizer's")
