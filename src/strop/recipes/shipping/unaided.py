"""Whether a folder that is to ship says, in transformers alone, what strop says.

A few prompts are answered greedily by strop's own sampler from the run's model, and by a process that has only
transformers from the folder. The prompts' tokens must be the same, and so must the answers'; where they part,
the token that strop chose must be within rounding of the largest logit there (a tie, which either may win).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import strop.model
from strop.recipes.settings import Recipe
from strop.recipes.shipping.serving import PLAIN, ollama_template
from strop.types import Group, Message, content_to_json

if TYPE_CHECKING:
    from strop.data.chat import Chat

PROGRAM = Path(strop.model.__file__).with_name("unaided.py")
NUM_PROMPTS, NUM_TOKENS = 4, 48
"""Prompts that are compared, and tokens of each answer."""
MOST_PROMPT = 512
"""Tokens of the longest prompt that is compared, where there are shorter ones."""
ROUNDING = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""How far apart two logits may be and still be a tie, in units of the largest one (at least 1)."""
FOLDED = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""The same for a model with its adapter folded in against the two apart."""
GENERIC = ("What is 17 + 25?", "Name three colours.", "Write one sentence about the sea.", "Why is the sky blue?")
"""Prompts where the run has none to offer."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of it.

    Attributes:
        same: answers that agree to the last token. ties: those that part at a tie.
        folded: largest difference in a logit between the merged model and the adapter on its base; null without one.
    """

    prompts: int
    tokens: int
    same: int
    ties: int
    dtype: str
    transformers: str
    folded: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        ties = f", {self.ties} part where two tokens are equally likely" if self.ties else ""
        text = f"{self.same} of {self.prompts} greedy answers ({self.tokens} tokens) are the same{ties}"
        return f"in transformers {self.transformers} alone ({self.dtype}): {text}"


@dataclass(frozen=True, slots=True)
class Own:
    """Strop's greedy answers: the prompts as JSON for a template, their ids, and the answers' ids.

    Attributes: stops: the texts of `stop_ids`. template: the chat template as Ollama writes one, if it can be said so.
    """

    prompts: list[dict[str, Any]]
    ids: list[list[int]]
    answers: list[list[int]]
    stop_ids: frozenset[int]
    stops: tuple[str, ...]
    template: str | None
    device: str
    dtype: str

    @property
    def plain(self) -> bool:
        """Whether the model is asked by texts, not by turns."""
        return all("text" in prompt for prompt in self.prompts)


def own_answers(model: str, groups: Sequence[Group], recipe: Recipe) -> Own:
    """Greedy answers of strop's own sampler to the first prompts that differ.

    Args: groups: prompts to choose from; none takes generic ones.
    """
    import torch

    from strop.data.chat import Chat
    from strop.model.load import choose_device, load, load_tokenizer
    from strop.recipes.settings import Sampling
    from strop.recipes.stages.common import sampler

    device = choose_device(recipe.device)
    chat = Chat(load_tokenizer(model))
    loaded = load(model, device=device, precision=recipe.precision, seed=recipe.seed, say=lambda text: None)
    prompts, ids = _prompts(chat, groups)
    sampling = Sampling(temperature=0.0, max_completion_length=NUM_TOKENS)
    drawn = sampler(loaded, chat, sampling, recipe.seed, 1)(ids, 0, 0)
    answers = [list(row[0].ids) for row in drawn]
    name = str(loaded.precision).removeprefix("torch.")
    stops = tuple(chat.token_texts(sorted(chat.stop_ids)))
    template = PLAIN if all("text" in prompt for prompt in prompts) else ollama_template(chat.tokenizer, chat.template)
    del loaded
    if device.startswith("cuda"):  # the other process needs the room
        torch.cuda.empty_cache()
    return Own(prompts, [list(row) for row in ids], answers, chat.stop_ids, stops, template, device, name)


def compare(folder: Path, own: Own, *, other: str | None, recipe: Recipe) -> Compared:
    """Ask transformers alone, and compare.

    Args: other: a folder that should compute the same logits, or "merge": see `strop.model.unaided`.
    Raises: ValueError if the folder cannot be used, says something else, or computes other logits than `other`.
    """
    told = _ask(folder, own, other, recipe)
    if told["prompts"] != own.ids:
        raise ValueError(f"{folder}: transformers writes a prompt in other tokens than strop trained on")
    same = ties = 0
    for place, (ours, theirs) in enumerate(zip(own.answers, told["answers"], strict=True)):
        mine, plain = (_ended(ids, own.stop_ids) for ids in (ours, theirs))
        if mine == plain:
            same += 1
            continue
        at = next((i for i, (a, b) in enumerate(zip(mine, plain, strict=False)) if a != b), min(len(mine), len(plain)))
        _check_tie(folder, told, place, at, own.dtype)
        ties += 1
    return Compared(
        prompts=len(own.answers),
        tokens=sum(map(len, own.answers)),
        same=same,
        ties=ties,
        dtype=own.dtype,
        transformers=told["versions"]["transformers"],
        folded=_checked_difference(folder, told, own.dtype),
    )


def _check_tie(folder: Path, told: dict[str, Any], place: int, at: int, dtype: str) -> None:
    """Raises ValueError if the answers part at a token that strop should not have chosen by this folder."""
    short = told["short"][place]
    gap = short[at] if at < len(short) else float("inf")
    limit = ROUNDING[dtype] * max(1.0, told["scale"])
    if not gap <= limit:
        raise ValueError(
            f"{folder}: loaded by transformers alone it gives another greedy answer than strop to prompt {place + 1}, "
            f"from token {at + 1} on (the logit of strop's token is {gap:.3g} below the largest, more than rounding's "
            f"{limit:.2g}). Nothing was exported; please report the model's architecture"
        )


def _checked_difference(folder: Path, told: dict[str, Any], dtype: str) -> float | None:
    found: float | None = told.get("difference")
    limit = FOLDED[dtype] * max(1.0, told["scale"])
    if found is not None and not found <= limit:
        raise ValueError(
            f"{folder}: merged, the model's logits differ by {found:.3g} from those of the adapter on its base, more "
            f"than {limit:.2g}; ship it apart, as adapter=apart"
        )
    return found


def _ask(folder: Path, own: Own, other: str | None, recipe: Recipe) -> dict[str, Any]:
    asked = {
        "folder": str(folder.resolve()),
        "prompts": own.prompts,
        "answers": own.answers,
        "num_tokens": NUM_TOKENS,
        "device": own.device,
        "dtype": own.dtype,
        "threads": recipe.threads,
        "other": other,
    }
    with tempfile.TemporaryDirectory() as place:
        questions, answers = Path(place) / "questions.json", Path(place) / "answers.json"
        questions.write_text(json.dumps(asked), "utf-8")
        command = [sys.executable, "-P", str(PROGRAM), str(questions), str(answers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise ValueError(
                f"{folder}: transformers alone cannot use it: {said[-1] if said else 'the process died'}. "
                "Nothing was exported"
            )
        found: dict[str, Any] = json.loads(answers.read_text("utf-8"))
        return found


def _prompts(chat: Chat, groups: Sequence[Group]) -> tuple[list[dict[str, Any]], list[tuple[int, ...]]]:
    """Prompts for the template and their ids: the first ones that differ, short ones if there are enough."""
    known = list({group.prompt: group for group in reversed(groups)}.values())[::-1][:64]
    known = known or [Group((Message("user", text),), ()) for text in GENERIC]
    found = [(group, chat.encode_prompt(group.prompt, group.row)) for group in known]
    short = [pair for pair in found if len(pair[1]) <= MOST_PROMPT]
    chosen = (short or sorted(found, key=lambda pair: len(pair[1])))[:NUM_PROMPTS]
    return [_as_json(group) for group, _ in chosen], [ids for _, ids in chosen]


def _as_json(group: Group) -> dict[str, Any]:
    if isinstance(group.prompt, str):
        return {"text": group.prompt}
    variables = group.row.get("chat_template_kwargs") or {}
    return {"messages": content_to_json(group.prompt), "variables": dict(variables)}


def _ended(ids: Sequence[int], stop_ids: frozenset[int]) -> list[int]:
    """The ids up to the first that ends an answer."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return list(ids[:end])
