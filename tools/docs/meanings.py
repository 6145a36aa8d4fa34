"""What a setting means, read from where it is declared: the docstring of its dataclass.

A docstring says it as `name: text` or `name, other: text`, or says `name as in `Class``. What all
classes share (a tag, a weight, a label) stands here once.
"""

from __future__ import annotations

import inspect
import re
from functools import cache

from strop.recipes.settings import Written
from strop.recipes.shape import fields_of

SHARED = {
    "name": "the tag that chooses this one",
    "kind": "the tag that chooses this one",
    "weight": "of this reward in the sum; 0 is watched, not trained on",
    "label": "the name it is logged by; null: its tag",
    "model": "a folder, hub name or `@stage`; null: the recipe's",
    "reference": "what the policy is held to: a folder, hub name or `@stage`; null: the model it starts from",
    "data": "the rows, see [data](data.md)",
    "eval_data": "held-out rows; null: a share of the data (`training.eval_fraction`)",
    "monitor": "watch for reward hacking, see [monitoring](monitoring.md)",
    "adapter": "train an adapter in place of the weights, see [lora](methods/lora.md)",
    "rewards": "what scores the answers, see [rewards](rewards.md)",
    "objective": "the loss, with its settings",
    "optimizer": "`adamw` or `muon`",
    "schedule": "of the learning rate: `linear`, `cosine` or `constant`",
    "training": "how the stage steps, packs and saves",
    "sampling": "how answers are drawn",
    "advantage": "how scores become advantages",
    "nll_weight": "adds this much of the chosen side's negative log-likelihood, a mean over the step's chosen tokens",
    "beta": "strength of the pull to the reference",
    "weighted": "set by a `correction`; multiplies the policy's term by its weight",
    "low": "lower bound",
    "high": "upper bound",
    "reward": "a reward's label that is read in place of the score",
    "micro_batch_tokens": "packed tokens a forward holds at most",
    "device": "auto, cpu or cuda",
    "max_length": "longer texts are unscorable; null: the model's positions",
    "separator": "what ends a step",
    "num_words": "words a repeated piece has",
    "margin": "a smaller difference is a tie",
    "unit": "what length is counted in",
    "seed": "of what is drawn",
}
"""Where a class says nothing else."""

HERE = {
    "Written.name": "of the run's folder",
    "Written.description": "a sentence for `strop ls`",
    "Written.seed": "of all that is drawn: rows, samples, fresh weights",
    "Written.stages": "in order; a recipe of one stage may be written flat",
    "Repeat.stages": "gone through in each round",
    "Training.epochs": "passes over the data, where `steps` is null",
    "AdamW.eps": "added to the root of the second moment",
    "Muon.momentum": "of the gradient",
    "Cosine.warmup": "as in `linear`",
    "Cosine.final": "the share of lr it ends at",
    "Constant.warmup": "as in `linear`",
    "Sampling.temperature": "0 is greedy",
    "Sampling.max_completion_length": "tokens of an answer at most",
    "Sampling.top_k": "for evaluation and `strop sample` only",
    "Sampling.top_p": "for evaluation and `strop sample` only",
    "RefFreeDPO.label_smoothing": "assumed share of flipped labels, in [0, 0.5)",
    "RefFreeDPO.beta": "scale of the log-ratio of the two sides",
    "AllPairs.label_smoothing": "as in `bradley_terry`",
    "CPO.beta": "scale of the difference of log-probs",
    "SequenceProduct.cap": "above it an answer is left out",
    "PPOStage.value": "the critic's loss",
    "SearchStage.method": "how answers are found",
    "ReviseStage.benign": "the column that says that a prompt is harmless",
    "Overlong.max_length": "tokens an answer may have",
    "RewardModel.std_weight": "how much the members' spread takes off",
    "Quantile.q": "between 0 and 1; .9 keeps the best tenth",
    "Matches.pattern": "of Python's `re`",
    "Repetition.max_share": "of the runs of words that repeat an earlier one",
    "Without.pattern": "of Python's `re`",
    "NearDup.of": "what is compared: the whole row, its prompt, or its answers",
    "Random.num": "pairs a prompt",
}
"""Where a class says it in other words than `name: text`."""

AS_IN = re.compile(r"((?:\w+,\s+)*\w+):?\s+as\s+(?:in|of)\s+`(?:\w+\.)*(\w+)`")


def meaning(cls: type, field: str) -> str:
    """What a setting does, in one line.

    Empty where neither the class's docstring nor this file says it; a test names those.
    """
    found = HERE.get(f"{cls.__name__}.{field}") or told(cls).get(field) or _elsewhere(cls, field)
    found = found or _of_stage(cls, field) or SHARED.get(field) or _above(cls, field)
    return found


@cache
def told(cls: type) -> dict[str, str]:
    """What the docstrings of a class and of those it extends say of its fields."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        found.update(_said(cls, inspect.cleandoc(owner.__doc__ or "")))
    return found


def _said(cls: type, doc: str) -> dict[str, str]:
    names = "|".join(map(re.escape, fields_of(cls)))
    heads = list(re.finditer(rf"(?:^|(?<=[\s;.]))((?:{names})(?:, (?:{names}))*): ", doc, re.MULTILINE))
    found = {}
    for head, behind in zip(heads, [*heads[1:], None], strict=False):
        text = doc[head.end() : behind.start() if behind else len(doc)]
        line = " ".join(re.split(r"\n\s*\n|\n(?=\S)", text)[0].split()).rstrip(";. ")
        found.update({name: line for name in head[1].split(", ") if not line.startswith("as in `")})
    return found


def _elsewhere(cls: type, field: str) -> str:
    """What the class says that is named by `field as in `Class``, or by `attributes as in`."""
    for names, other in AS_IN.findall(inspect.getdoc(cls) or ""):
        known = classes().get(other) or classes().get(other.capitalize())
        if known and (field in names.split(", ") or names.lower() in ("attributes", "others", "settings")):
            return told(known).get(field) or _elsewhere(known, field) or SHARED.get(field, "")
    return ""


def _of_stage(cls: type, field: str) -> str:
    """A stage's name, which is no tag."""
    return "of the stage; later ones refer to it as `@name`" if field == "name" and "kind" in fields_of(cls) else ""


def _above(cls: type, field: str) -> str:
    """Where the class's first sentence names the setting, as `target`, no more need be said."""
    first = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return "as said above" if re.search(rf"`{field}`", first) else ""


@cache
def classes() -> dict[str, type]:
    """Every settings class that a recipe may hold, by name; a name that two modules use is the first's."""
    return {cls.__name__: cls for cls in reversed(reached(Written))}


@cache
def reached(top: type) -> tuple[type, ...]:
    """A settings class and those below it, in the order of declaration."""
    found: dict[type, None] = {}
    waiting = [top]
    while waiting:
        cls = waiting.pop(0)
        if cls not in found:
            found[cls] = None
            waiting += [c for shape in fields_of(cls).values() for c in (shape.item or shape).classes]
    return tuple(found)
