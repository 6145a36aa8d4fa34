"""The gate that a finished model passes, and its export."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from strop.recipes.kinds.evaluate import EvaluateStage
from strop.recipes.parts import Data, Found, Sampling, at_least, sampling_problems
from strop.rewards import RewardSettings

PASSED = "gate/passed"
"""The figure that says whether a model passed: 1 or 0."""
HELD_BACK = 3
"""The exit code of a gate that did not let a model pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSet:
    """Prompts that a model must still do well on before it ships.

    Attributes:
        name: how it is called; empty is the setting's name, with a number where there are several.
        data, rewards, num_samples, sampling: as of an evaluation.
        margin: how much the model may lose against the one it is compared with; null is the stage's, or no
            comparison where a floor is given.
        floor: the least its own figure must reach; of a reward with a negative weight, the most.
    """

    name: str = ""
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_samples: int = 1
    sampling: Sampling = Sampling(temperature=0.0)
    margin: float | None = None
    floor: float | None = None

    def problems(self) -> Found:
        """What an evaluation of these prompts would refuse, and limits that are none."""
        if self.data is None:
            yield ("data",), "is missing; name a file of prompts, as data: harmful.jsonl"
        asked = EvaluateStage(
            data=self.data, rewards=self.rewards, num_samples=self.num_samples, sampling=self.sampling
        )
        yield from asked.problems()
        yield from ((("sampling", *path), text) for path, text in sampling_problems(self.sampling))
        if self.data is not None:
            yield from ((("data", *path), text) for path, text in at_least(self.data, ("limit",), 1))
        yield from limits(self.margin, self.floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipStage:
    """A gate, and behind it the model as a folder that others can load.

    The gate compares the model's answers with those of the model it came from, prompt by prompt: by the run's
    own evaluations, or by `data` and `rewards`. It looks for alarms of the monitor that nothing has closed, and at
    sets for safety and capability. Where it does not pass, nothing is exported.

    Attributes:
        against: the model to compare with; null is the one that the run's first evaluation of the same data asked.
        margin: how much may be lost, as a share of a reward's range: [0, 1], or where it goes beyond, the range of the
            other model's values.
        unclear: what becomes of a model whose loss the prompts are too few to exclude: hold it back, or let it pass.
        metrics: rewards that are judged, "-name" where less is better; none takes those that have a weight, of which
            a negative one says that less is better.
        data, rewards, num_samples, sampling: an evaluation to judge by in place of the run's own.
        safety, capability: further sets, each with a margin or a floor of its own.
        adapter: fold a trained adapter into the weights, or ship it apart from its base model.
        gguf: also convert with llama.cpp, to weights of this type; not with `adapter: apart`.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[int, int | None]] = (0, None)
    leaves: ClassVar[tuple[str, ...]] = ("model",)
    models: ClassVar[tuple[str, ...]] = ("model", "against")
    datasets: ClassVar[tuple[str, ...]] = ()

    kind: Literal["ship"] = "ship"
    name: str = "ship"
    model: str | None = None
    against: str | None = None
    margin: float = 0.05
    unclear: Literal["hold", "pass"] = "hold"
    metrics: tuple[str, ...] = ()
    data: Data | None = None
    rewards: tuple[RewardSettings, ...] = ()
    num_samples: int = 1
    sampling: Sampling = Sampling(temperature=0.0)
    safety: tuple[GateSet, ...] = ()
    capability: tuple[GateSet, ...] = ()
    adapter: Literal["merged", "apart"] = "merged"
    gguf: Literal["f32", "f16", "bf16", "q8_0", "auto"] | None = None

    def problems(self) -> Found:
        """Limits that are none, sets that nothing could be asked of, and two of one name."""
        yield from limits(self.margin, None)
        if self.gguf and self.adapter == "apart":
            yield ("gguf",), "converts whole models, and adapter=apart ships none; leave one of the two out"
        if self.data is not None:
            asked = EvaluateStage(
                data=self.data, rewards=self.rewards, num_samples=self.num_samples, sampling=self.sampling
            )
            yield from asked.problems()
            yield from ((("data", *path), text) for path, text in at_least(self.data, ("limit",), 1))
        elif self.rewards:
            yield ("data",), "is missing; rewards judge answers to its prompts, as data=test.jsonl"
        seen: dict[str, tuple[str, int]] = {}
        for key in ("safety", "capability"):
            for index, one in enumerate(getattr(self, key)):
                yield from (((key, index, *path), text) for path, text in one.problems())
                label = set_name(key, index, one)
                if label in seen:
                    yield (key, index, "name"), f"{label!r} is the name of {seen[label]} too; names tell sets apart"
                seen.setdefault(label, (key, index))


def set_name(key: str, index: int, one: GateSet) -> str:
    """What a set is called: its own name, or the setting's, with a number from the second on."""
    return one.name or (key if index == 0 else f"{key}-{index + 1}")


def limits(margin: float | None, floor: float | None) -> Found:
    """A margin below 0, or a limit that is no number."""
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        yield ("margin",), f"must not be negative, got {margin}: it is how much may be lost"
    if floor is not None and not math.isfinite(floor):
        yield ("floor",), f"must be a number, got {floor}"
