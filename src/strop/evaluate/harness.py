"""Tasks of EleutherAI's lm-evaluation-harness, answered by a model of ours.

The harness writes the prompts and judges the answers; log-probs come from the packed forward, which reads a question
once for all its choices, and texts from the sampler. Only this module imports it (the extra `lm-eval`).
Gao et al., https://github.com/EleutherAI/lm-evaluation-harness; made for version 0.4.13.

Left out: tasks with pictures, and tasks that ask another model.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lm_eval
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from strop.batch import Batch
from strop.data.encoded import EncodedGroup, EncodedSequence
from strop.evaluate.sampled import TASK
from strop.evaluate.statistics import Measure, measure
from strop.model.forward import LanguageModel
from strop.model.sequences import sequence_numbers
from strop.rollout.sampler import sample
from strop.types import Completion, Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RESAMPLES = 1_000
"""Of figures that are no means, which the harness resamples itself."""
QUANTILE = 1.96
"""Standard errors on each side of a 95 % interval, where the harness tells an error only."""

Ids = tuple[int, ...]


class Answerer(TemplateLM):  # type: ignore[misc]
    """A model as the harness asks it: log-probs of continuations, of whole texts, and texts up to a stop.

    Args:
        stop_ids: tokens that end an answer.
        max_length: tokens a prompt and answer may have; longer prompts lose their beginning, as the harness has it.
        max_completion_length: of answers where a task says nothing.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: frozenset[int],
        max_length: int,
        max_completion_length: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.stop_ids = model, tokenizer, stop_ids
        self.max_length, self.max_completion_length = max_length, max_completion_length
        self.max_tokens, self.seed = max_tokens, seed

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a prompt is read behind."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def tokenizer_name(self) -> str:
        """The harness keys its caches by it."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, with the tokenizer's own first token unless it stands there already."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            add_special_tokens = not (start and string.startswith(start))
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Turns as a prompt."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Each continuation's log-prob (nats), and whether all its tokens are the likeliest; a context is read once."""
        asked: dict[Ids, list[int]] = defaultdict(list)
        for place, (_text, context, continuation) in enumerate(requests):
            room = self.max_length + 1 - len(continuation)
            if room < 1:
                raise ValueError(f"a continuation of {len(continuation)} tokens, where the model has {self.max_length}")
            asked[tuple(context[-room:])].append(place)
        groups = [
            EncodedGroup(context, tuple(_trained(requests[place][2]) for place in places))
            for context, places in asked.items()
        ]
        found: dict[int, tuple[float, bool]] = {}
        rows = sequence_numbers(self._numbers, groups, max_tokens=self.max_tokens, device=self.model.device)
        for places, row in zip(asked.values(), rows, strict=True):
            for place, numbers in zip(places, row, strict=True):
                found[place] = float(numbers[:, 0].sum(dtype="float64")), bool(numbers[:, 1].all())
        return [found[place] for place in range(len(requests))]

    def _numbers(self, batch: Batch) -> torch.Tensor:
        out = self.model(batch, wants={"correct"})
        assert out.correct is not None
        return torch.stack([out.logprobs, out.correct], -1)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probs of whole texts, in windows of the model's length, each token once."""
        windows, owners = [], []
        for place, request in enumerate(requests):
            parts = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, parts):
                windows.append((None, context, continuation))
                owners.append(place)
        totals = [0.0] * len(requests)
        for place, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[place] += logprob
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to the first of a request's stops; those with the same settings are drawn together."""
        alike: dict[str, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True, default=str)].append(place)
        texts = [""] * len(requests)
        for step, places in enumerate(alike.values()):
            drawn = self._drawn([requests[i].args[0] for i in places], _Wanted.of(requests[places[0]].args[1]), step)
            for place, text in zip(places, drawn, strict=True):
                texts[place] = text
        return texts

    def _drawn(self, prompts: Sequence[str], wanted: _Wanted, step: int) -> list[str]:
        longest = min(wanted.max_length or self.max_completion_length, self.max_length - 1)
        ids = [self.tok_encode(prompt)[-(self.max_length - longest) :] for prompt in prompts]
        with self.model.autocasting():
            rows = sample(
                self.model.module,
                ids,
                num_samples=1,
                max_new_tokens=longest,
                temperature=wanted.temperature,
                seed=self.seed,
                step=step,
                stop_ids=self.stop_ids,
                stop_strings=wanted.stops,
                decode=self._decode if wanted.stops else None,
                top_k=wanted.top_k,
                top_p=wanted.top_p,
                path="shared" if self.model.path == "packed" else "padded",
            )
        return [_cut(self._decode([i for i in row[0].ids if i not in self.stop_ids]), wanted.stops) for row in rows]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How an answer is drawn: what ends it, how long it may be, and how random it is."""

    stops: tuple[str, ...]
    max_length: int | None
    temperature: float
    top_k: int | None
    top_p: float | None

    @staticmethod
    def of(settings: Mapping[str, Any]) -> _Wanted:
        """A task's settings, by the names that the harness knows."""
        until = settings.get("until") or []
        stops = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        longest = next((int(settings[name]) for name in names if settings.get(name) is not None), None)
        random = settings.get("do_sample", True)
        top_p, top_k = settings.get("top_p"), settings.get("top_k")
        return _Wanted(
            stops=stops,
            max_length=longest,
            temperature=float(settings.get("temperature") or 0.0) if random else 0.0,
            top_k=int(top_k) if random and top_k else None,
            top_p=float(top_p) if random and top_p and float(top_p) < 1 else None,
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of tasks: figures with their intervals, and every question with what was said and how it was judged."""

    figures: Mapping[str, Measure]
    groups: tuple[Group, ...] = field(default=())


def answer_tasks(
    answerer: Answerer,
    names: Sequence[str],
    *,
    folder: str | None,
    num_fewshot: int | None,
    limit: int | None,
    chat: bool,
    seed: int,
) -> Answered:
    """Have a model answer tasks.

    Returns: figures `<task>/<metric>`, with `,<filter>` where a task reads answers in several ways; groups of tasks by
        the group's name. Intervals of means are over questions, as everywhere here; of other figures by the
        harness's standard error.
    Raises: ValueError for a task that it does not know, or whose questions cannot be had.
    """
    manager = TaskManager(include_path=folder)
    known = set(manager.all_tasks)
    if unknown := [name for name in names if name not in known]:
        near = "; ".join(_like(name, sorted(known)) for name in unknown)
        raise ValueError(f"tasks.names: lm-evaluation-harness knows no task {near}; `lm-eval ls tasks` lists them")
    try:
        out = lm_eval.simple_evaluate(
            model=answerer,
            tasks=list(names),
            num_fewshot=num_fewshot,
            limit=limit,
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=RESAMPLES,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except (OSError, ConnectionError) as error:
        raise ValueError(f"tasks: the questions of {', '.join(names)} cannot be had: {error}") from error
    assert out is not None
    return _answered(out, seed)


def _answered(out: Mapping[str, Any], seed: int) -> Answered:
    groups: list[Group] = []
    figures: dict[str, Measure] = {}
    for task, said in out["samples"].items():
        own = [_group(task, rows) for rows in _by_question(said)]
        groups += own
        figures |= _figures(task, out["results"][task], own, len(own), seed)
    for name, results in (out.get("groups") or {}).items():
        num = sum(g.row[TASK] in out["group_subtasks"].get(name, ()) for g in groups)
        figures |= _figures(name, results, [], num or len(groups), seed)
    return Answered(figures, tuple(groups))


def _figures(name: str, results: Mapping[str, Any], groups: Sequence[Group], num: int, seed: int) -> dict[str, Measure]:
    """A task's figures: with intervals over questions where the figure is the mean of theirs."""
    found: dict[str, Measure] = {}
    for key, value in results.items():
        metric, _, reading = key.partition(",")
        if not reading or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        label = _label(name, metric, reading)
        rows = [[c.rewards.get(label) for c in group.completions] for group in groups]
        mean = measure(rows, seed=seed)
        if mean.n and abs(mean.value - float(value)) < 1e-9:
            found[label] = mean
            continue
        error = results.get(f"{metric}_stderr,{reading}")
        wide = QUANTILE * float(error) if isinstance(error, int | float) and math.isfinite(error) else None
        low, high = (None, None) if wide is None else (float(value) - wide, float(value) + wide)
        found[label] = Measure(float(value), low, high, num)
    return found


def _label(task: str, metric: str, reading: str) -> str:
    return f"{task}/{metric}" + ("" if reading == "none" else f",{reading}")


def _by_question(said: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """A question's records together: there is one for each way of reading the answer."""
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for record in said:
        found[record["doc_id"]].append(record)
    return list(found.values())


def _group(task: str, records: Sequence[Mapping[str, Any]]) -> Group:
    first = records[0]
    values = {
        _label(task, metric, record["filter"]): float(record[metric])
        for record in records
        for metric in record["metrics"]
        if isinstance(record.get(metric), bool | int | float)
    }
    completion = Completion(_said(first), rewards=values)
    row = {TASK: task, "target": str(first["target"])}
    return Group(str(first["arguments"][0][0]), (completion,), row=row, origin=f"{task}:{first['doc_id']}")


def _said(record: Mapping[str, Any]) -> str:
    """The answer, or of given choices the likeliest one."""
    answers = [answer[0] for answer in record["resps"]]
    if isinstance(answers[0], str):
        return answers[0]
    if isinstance(answers[0], Sequence) and len(record["arguments"][0]) > 1:
        best = max(range(len(answers)), key=lambda i: answers[i][0])
        return str(record["arguments"][best][1])
    return ""


def _cut(text: str, stops: Sequence[str]) -> str:
    return min((text.split(stop)[0] for stop in stops), key=len, default=text)


def _trained(ids: Sequence[int]) -> EncodedSequence:
    return EncodedSequence(tuple(ids), (True,) * len(ids))


def _like(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name!r}" + (f" (did you mean {near[0]}?)" if near else "")
