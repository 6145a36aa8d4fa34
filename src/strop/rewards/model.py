"""A reward model's score of each completion, or that of an ensemble.

Any folder or name of transformers' sequence classifiers with one label, or two whose logits are
subtracted, serves: those a stage of kind reward left, and others. Completions are written by the
model's own tokenizer and chat template, the prompt once for all of them, and all groups of a call
are scored together. Models are loaded at first use and kept for the process.

Left out: models that write their verdict as text; scores of single steps (`process`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from strop.data.encoded import EncodedGroup
from strop.data.whole import NO_LIMIT, WholeChat
from strop.lazy import lazy_module
from strop.rewards.extract import after_think
from strop.rewards.scale import FILE, Combine, Figures, combined, normalised, read_figures, residual
from strop.types import Content, Group, Message, Verdict

if TYPE_CHECKING:
    from strop.model import load as model_load
    from strop.model import scoring
    from strop.model.scoring import Scorer
else:
    model_load = lazy_module("strop.model.load")
    scoring = lazy_module("strop.model.scoring")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """What a reward model thinks of a completion; unscorable where prompt and completion do not fit.

    Attributes:
        path: a classifier's folder or hub name, or `@stage`; several make an ensemble.
        combine: how members' scores, each brought to one scale, become one: their mean, the mean less
            std_weight deviations, the lowest, or (uwo) the mean less std_weight variances.
        normalize: (score - mean) / std by the figures beside the model (reward.json); false takes scores
            as they are. An ensemble's members always are on their own scale.
        length_debias: take out what length explains within the prompt, by the model's own slope.
        part: what it reads of a completion: `all`, or the `answer` behind the last `</think>`, so that nothing
            is gained by how the thinking sounds. An answer that never comes is read as an empty one.
        as_chat: write a prompt that is plain text as a user's turn; false writes it as it stands.
        max_length: tokens of prompt and completion; null is what the model has positions for.
        micro_batch_tokens: packed tokens a forward holds at most.
    """

    models: ClassVar[tuple[str, ...]] = ("path",)

    path: str | tuple[str, ...]
    name: Literal["model"] = "model"
    combine: Combine = "mean"
    std_weight: float = 0.5
    normalize: bool = True
    length_debias: bool = False
    part: Literal["all", "answer"] = "all"
    as_chat: bool = False
    max_length: int | None = None
    micro_batch_tokens: int = 4096
    device: str = "auto"
    weight: float = 1.0
    label: str | None = None

    def __post_init__(self) -> None:
        _check("" not in self.paths and bool(self.paths), "model.path is empty; name a model folder, or @stage")
        alone = len(self.paths) == 1
        _check(self.combine == "mean" or not alone, f"model.combine={self.combine} needs several models in model.path")
        _check(self.std_weight >= 0, f"model.std_weight must not be negative, got {self.std_weight}")
        _check(
            self.max_length is None or self.max_length > 1,
            f"model.max_length must be at least 2, got {self.max_length}",
        )
        _check(
            self.micro_batch_tokens >= 1, f"model.micro_batch_tokens must be positive, got {self.micro_batch_tokens}"
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The ensemble's members, or the one model."""
        return (self.path,) if isinstance(self.path, str) else self.path

    def __call__(self, groups: Sequence[Group]) -> list[list[Verdict]]:
        members = [self._open(path) for path in self.paths]
        if self.as_chat:
            groups = [_as_chat(group) for group in groups]
        if self.part == "answer":
            groups = [_answers_only(group) for group in groups]
        judged = [member.judge(groups, self.max_length, self.micro_batch_tokens) for member in members]
        if self.length_debias:
            judged = [
                [replace(row, scores=residual(row.scores, row.lengths, m.known.length_slope)) for row in rows]
                for m, rows in zip(members, judged, strict=True)
            ]
        return [self._verdicts(members, rows) for rows in zip(*judged, strict=True)]

    def _open(self, path: str) -> _Member:
        member = open_model(path, self.device)
        if len(self.paths) > 1 or self.normalize or self.length_debias:
            member.check_figures(within=len(self.paths) > 1)
        return member

    def _verdicts(self, members: Sequence[_Member], rows: Sequence[Judged]) -> list[Verdict]:
        """One prompt's verdicts, from what each member said."""
        if len(members) == 1:
            (row,) = rows
            scores = normalised(row.scores, members[0].known) if self.normalize else row.scores
            return [Verdict(s, why) for s, why in zip(scores, row.reasons, strict=True)]
        found = combined([row.scores for row in rows], [m.known for m in members], self.combine, self.std_weight)
        reasons = [next((why for why in said if why), "") for said in zip(*(row.reasons for row in rows), strict=True)]
        return [
            Verdict(f.score, why)
            if f.score is None
            else Verdict(f.score, f"members lie {f.spread:.3g} apart", facts={"std": f.spread})
            for f, why in zip(found, reasons, strict=True)
        ]


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)


# A model that is open.


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model said of one prompt's completions: scores, their tokens, and why one is unscorable."""

    scores: Sequence[float | None]
    lengths: Sequence[int]
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Member:
    """A reward model with its tokenizer; `chat` None writes prompt and completion as two texts, as BERT reads them."""

    path: str
    scorer: Scorer
    tokenizer: Any
    chat: WholeChat | None
    figures: Figures | None
    positions: int

    @property
    def known(self) -> Figures:
        assert self.figures is not None, "checked when the model was opened"
        return self.figures

    def check_figures(self, *, within: bool) -> None:
        """Raises ValueError if the figures that its scores are scaled by are not there."""
        if self.figures is None:
            raise ValueError(
                f"model.path: {self.path} has no {FILE} with the mean and deviation of its scores; run a stage of "
                "kind calibrate on it, or set normalize=false and length_debias=false for one model's plain scores"
            )
        width = self.figures.std_within if within else self.figures.std
        if not width > 0:
            what = "within prompts" if within else "at all"
            raise ValueError(f"model.path: the scores of {self.path} did not differ {what} when {FILE} was made")

    def judge(self, groups: Sequence[Group], max_length: int | None, max_tokens: int) -> list[Judged]:
        """The scores of every completion, those of all groups in one go."""
        limit = min(self.positions, max_length or self.positions)
        if self.chat is None:
            return self._judge_texts(groups, limit, max_tokens)
        places = _encoded(self.chat, groups, limit)
        asked = [e for places_of_group in places for e in places_of_group.groups]
        numbers = iter(score for row in self.scorer.score_groups(asked, max_tokens) for score in row)
        return [place.judged(numbers) for place in places]

    def _judge_texts(self, groups: Sequence[Group], limit: int, max_tokens: int) -> list[Judged]:
        """Prompt and completion as first and second text, joined as the tokenizer joins two."""
        assert isinstance(self.scorer, scoring.StockScorer)
        rows, lengths = [], []
        for group in groups:
            for completion in group.completions:
                said = self.tokenizer(_text(group.prompt), completion.text, verbose=False)
                types = said.get("token_type_ids")
                rows.append(scoring.Row(tuple(said["input_ids"]), None if types is None else tuple(types)))
                bare = self.tokenizer(completion.text, add_special_tokens=False, verbose=False)
                lengths.append(len(bare["input_ids"]))
        whys = [_too_long(len(row.ids), limit) for row in rows]
        found = iter(self.scorer.score_rows([r for r, why in zip(rows, whys, strict=True) if not why], max_tokens))
        scores = [None if why else next(found) for why in whys]
        ends = list(accumulate((len(group.completions) for group in groups), initial=0))
        parts = [slice(i, j) for i, j in pairwise(ends)]
        return [Judged(scores[part], lengths[part], whys[part]) for part in parts]


def open_model(path: str, device: str = "auto") -> _Member:
    """The reward model of a path, loaded once for as long as its files stay the same.

    Raises: ValueError naming the path where there is no model or tokenizer.
    """
    return _opened(path, model_load.choose_device(device), stamp(path))


@lru_cache(maxsize=8)
def _opened(path: str, device: str, stamp: int) -> _Member:
    scorer = scoring.load_scorer(path, device=device, say=lambda text: None)
    tokenizer = model_load.load_tokenizer(path)
    two_texts = isinstance(scorer, scoring.StockScorer) and not tokenizer.chat_template
    config = scorer.module.config.get_text_config()
    positions = int(
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or NO_LIMIT
    )
    return _Member(path, scorer, tokenizer, None if two_texts else WholeChat(tokenizer), read_figures(path), positions)


def stamp(path: str) -> int:
    """When a folder's files last changed; 0 for a name."""
    folder = Path(path)
    return max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0) if folder.is_dir() else 0


# Completions as tokens.


@dataclass(frozen=True, slots=True)
class _Place:
    """One prompt's completions as they are asked for: together, or one by one; and what is not asked at all."""

    groups: list[EncodedGroup]
    lengths: list[int]
    reasons: list[str]

    def judged(self, numbers: Iterator[float]) -> Judged:
        """With the scores, which come in order."""
        return Judged([None if why else next(numbers) for why in self.reasons], self.lengths, self.reasons)


def _encoded(chat: WholeChat, groups: Sequence[Group], limit: int) -> list[_Place]:
    """Every group's completions behind its prompt, whole; a refused group's one by one, to find the bad one."""
    out = []
    for group, found in zip(groups, chat.encode_many(groups, NO_LIMIT), strict=True):
        if isinstance(found, EncodedGroup):
            out.append(_fitting([found], limit))
            continue
        alone = chat.encode_many([replace(group, completions=(c,)) for c in group.completions], NO_LIMIT)
        out.append(_fitting(alone, limit))
    return out


def _fitting(encoded: Sequence[EncodedGroup | str], limit: int) -> _Place:
    """What is asked of one prompt: sequences of at most `limit` tokens with their prompt."""
    asked, lengths, reasons = [], [], []
    for one in encoded:
        if isinstance(one, str):
            lengths.append(0)
            reasons.append(one)
            continue
        whys = [_too_long(len(one.prompt_ids) + len(s.ids), limit) for s in one.sequences]
        lengths += [len(s.ids) for s in one.sequences]
        reasons += whys
        kept = tuple(replace(s, columns={}) for s, why in zip(one.sequences, whys, strict=True) if not why)
        if kept:
            asked.append(EncodedGroup(one.prompt_ids, kept))
    return _Place(asked, lengths, reasons)


def _too_long(length: int, limit: int) -> str:
    return f"{length} tokens with the prompt, more than the {limit} the reward model reads" if length > limit else ""


def _as_chat(group: Group) -> Group:
    return replace(group, prompt=(Message("user", group.prompt),)) if isinstance(group.prompt, str) else group


def _answers_only(group: Group) -> Group:
    return replace(group, completions=tuple(replace(c, content=_answer_of(c.content)) for c in group.completions))


def _answer_of(content: Content) -> Content:
    """The content with the thinking of its last turn taken out."""
    if isinstance(content, str):
        return after_think(content).strip()
    *before, last = content
    return (*before, replace(last, content=after_think(last.content).strip()))


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "\n".join(message.content for message in content)
