"""Replies of a language model in this process: free text from the sampler, verdicts by scoring their options."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from strop.data.chat import Chat
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.judges.protocol import Reply, Request
from strop.model.forward import LanguageModel
from strop.model.load import choose_device, load, load_tokenizer
from strop.model.sequences import sequence_logprobs
from strop.rollout.sampler import Sampled, sample
from strop.types import Message

if TYPE_CHECKING:
    from strop.judges.inprocess import InProcess


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded judge. `positions`: tokens that a prompt and its reply may have."""

    model: LanguageModel
    chat: Chat
    positions: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as token ids, with what was written behind the prompt so far."""

    place: int
    request: Request
    ids: tuple[int, ...]
    said: str = ""


def opened(path: str, device: str) -> Opened:
    """The model of a path, loaded once for as long as its files stay the same.

    Raises: ValueError naming the path where there is no model or tokenizer.
    """
    folder = Path(path)
    files = list(folder.iterdir()) if folder.is_dir() else []
    return _opened(path, choose_device(device), max((file.stat().st_mtime_ns for file in files), default=0))


@lru_cache(maxsize=4)
def _opened(path: str, device: str, stamp: int) -> Opened:
    model = load(path, device=device, say=lambda text: None)
    positions = int(model.module.config.get_text_config().max_position_embeddings)
    return Opened(model, Chat(load_tokenizer(path)), positions)


def answers(settings: InProcess, requests: Sequence[Request]) -> list[Reply]:
    """One reply a request, in order."""
    judge = opened(settings.path, settings.device)
    replies: dict[int, Reply] = {}
    asked = []
    for place, request in enumerate(requests):
        ids = _prompt_ids(judge, request.messages)
        room = judge.positions - len(ids) - _room(request)
        if room >= 0:
            asked.append(_Asked(place, request, ids))
        else:
            why = f"{-room} tokens too long for the judge, which reads {judge.positions} with the reply"
            replies[place] = Reply(text=None, reason=why)
    asked = [_begun(judge.chat, a) for a in asked]
    ready = [a for a in asked if a.request.options and not a.request.think]
    asked = ready + _written(settings, judge, [a for a in asked if a.request.think or not a.request.options])
    replies |= {a.place: Reply(text=a.said) for a in asked if not a.request.options}
    replies |= _chosen(settings, judge, [a for a in asked if a.request.options])
    return [replies[place] for place in range(len(requests))]


def _room(request: Request) -> int:
    """Tokens that the reply may need: what is written, and a verdict's line."""
    line = len(request.begin) + len(request.end) + max(map(len, request.options), default=0)
    return line + (request.max_tokens if request.think or not request.options else 0)


def _prompt_ids(judge: Opened, messages: Sequence[Message]) -> tuple[int, ...]:
    """The turns' ids; a control token of the judge's own tokenizer among the words is spelled out."""
    return judge.chat.encode_prompt(tuple(replace(m, content=_harmless(judge.chat, m.content)) for m in messages))


def _begun(chat: Chat, one: _Asked) -> _Asked:
    """A verdict without options to choose from is begun for the model, where it need not think first."""
    request = one.request
    if request.options or request.think or not request.begin:
        return one
    return replace(one, ids=one.ids + chat.encode_texts([request.begin])[0], said=request.begin)


def _harmless(chat: Chat, text: str) -> str:
    while found := chat.control_in(text):
        text = text.replace(found, "\u27e6" + " ".join(f"{ord(char):X}" for char in found) + "\u27e7")
    return text


# Writing.


def _written(settings: InProcess, judge: Opened, asked: Sequence[_Asked]) -> list[_Asked]:
    """The requests with what the model writes, or thinks before its verdict."""
    alike: dict[tuple[float, int], list[_Asked]] = {}
    for one in asked:
        alike.setdefault((one.request.temperature, one.request.max_tokens), []).append(one)
    out = []
    for part in alike.values():
        drawn = _draw(settings, judge, part)
        for one, sampled in zip(part, drawn, strict=True):
            text = judge.chat.decode(sampled.ids)
            if one.request.options:  # the verdict is ours to write, behind the thought
                text = text.split('{"nonce"')[0].rstrip() + "\n"
            out.append(replace(one, said=one.said + text))
    return out


def _draw(settings: InProcess, judge: Opened, asked: Sequence[_Asked]) -> list[Sampled]:
    request, model = asked[0].request, judge.model
    seeds = ",".join(str(one.request.seed) for one in asked)
    with model.autocasting():
        drawn = sample(
            model.module,
            [one.ids for one in asked],
            num_samples=1,
            max_new_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=int.from_bytes(hashlib.sha256(seeds.encode()).digest()[:4], "big") >> 1,
            step=0,
            stop_ids=judge.chat.stop_ids,
            rows=settings.rows,
            path="shared" if model.path == "packed" else "padded",
        )
    return [row[0] for row in drawn]


# Choosing.


def _chosen(settings: InProcess, judge: Opened, asked: Sequence[_Asked]) -> dict[int, Reply]:
    """Each request's verdict by the log-probabilities of its options, the likeliest one written."""
    if not asked:
        return {}
    groups = [_group(judge.chat, one) for one in asked]
    model = judge.model
    found = sequence_logprobs(
        model, groups, temperature=1.0, max_tokens=settings.micro_batch_tokens, device=model.device
    )
    replies = {}
    for one, row in zip(asked, found, strict=True):
        sums = [float(tokens.sum(dtype="float64")) for tokens in row]
        if all(map(math.isfinite, sums)):
            replies[one.place] = _verdict(one, dict(zip(one.request.options, sums, strict=True)))
        else:
            replies[one.place] = Reply(text=None, reason="the judge's log-probabilities are not finite")
    return replies


def _group(chat: Chat, one: _Asked) -> EncodedGroup:
    """The options' lines as continuations; log-probs are read from where they part."""
    request = one.request
    lines = chat.encode_texts([one.said + request.begin + option + request.end for option in request.options])
    shared = next(i for i, ids in enumerate(zip(*lines, strict=False)) if len(set(ids)) > 1)
    sequences = (EncodedSequence(ids, tuple(i >= shared for i in range(len(ids)))) for ids in lines)
    return EncodedGroup(one.ids, tuple(sequences))


def _verdict(one: _Asked, logprobs: Mapping[str, float]) -> Reply:
    top = max(logprobs.values())
    total = top + math.log(math.fsum(math.exp(value - top) for value in logprobs.values()))
    best = max(logprobs, key=logprobs.__getitem__)
    text = one.said + one.request.begin + best + one.request.end
    # The options are all there is to choose from, so their probabilities sum to 1.
    return Reply(text=text, option_logprobs={option: value - total for option, value in logprobs.items()})
