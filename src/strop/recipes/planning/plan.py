"""A recipe's memory and time, stage by stage, from its model's config and one measured step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from strop.model.load import choose_device, dtype
from strop.recipes import artifacts
from strop.recipes.methods import samples_of
from strop.recipes.planning import fits, microstep, work
from strop.recipes.planning.counts import Counts
from strop.recipes.planning.exact import counts_of
from strop.recipes.planning.loads import Load, Reader
from strop.recipes.planning.place import CARD_PLACE, GIB, LIBRARIES, MIB, Place
from strop.recipes.planning.stage import (
    ROWS,
    Drawn,
    Held,
    Phase,
    budget_of,
    frozen_phases,
    fullest,
    is_scalar,
    others_of,
    training_phases,
)
from strop.recipes.settings import (
    EvaluateStage,
    PPOStage,
    Recipe,
    RefreshStage,
    RewardStage,
    Sampling,
    Stage,
    TrainingStage,
)
from strop.train.memory import free_memory
from strop.world.write import resolve

UNKNOWN_PROMPT = 1024
MOST_WORK = 8
"""A measurement may take so many times the work that is aimed at."""
CLOSE = 0.1
"""A measurement within this share of the arithmetic confirms it: two runs of one recipe differ as much."""
LEAST_HEAP, MOST_HEAP = 0.9, 6.0
"""What the measured factor is held within: two steps on few rows leave fewer holes than a run does, so that a lower
peak says little of what a heap grows to."""


@dataclass(frozen=True, slots=True)
class Time:
    """How long a stage takes, seconds.

    Attributes:
        step: by phase; empty where there are no steps.
        stage: all of it, with what comes before the first step; None where the number of steps is not known.
        rates: operations a second by phase. said: where they were measured.
    """

    step: Mapping[str, float]
    stage: float | None
    rates: Mapping[str, float]
    said: str


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage takes on the present device.

    Attributes:
        counts: of the model it starts from. load: what its steps hold; None where it makes none.
        phases: what it holds as it goes on. measured: the peak of the measured step, bytes; None without one.
        flops: of a step, by phase; of a stage without steps, of all that it samples.
        time: None where no step of the recipe was measured. notes: what was assumed.
    """

    name: str
    kind: str
    model: str | None
    counts: Counts | None
    load: Load | None
    phases: tuple[Phase, ...]
    measured: float | None = None
    flops: Mapping[str, float] = field(default_factory=dict)
    time: Time | None = None
    verdicts: tuple[fits.Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> Phase:
        """The fullest phase."""
        return fullest(self.phases)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What is known before a stage is reckoned: its recipe, its models by name, and its rows."""

    recipe: Recipe
    stage: Stage
    names: Mapping[str, str]
    held: Held | None
    folder: Path | None
    reader: Reader


def plan(recipe: Recipe, cards: Sequence[fits.Cards] = fits.USUAL, *, measuring: bool = True) -> tuple[StagePlan, ...]:
    """Every stage's plan, in order.

    Raises: ValueError in a sentence where a model's config or a data file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="strop-world-") as world:
        reader = Reader(recipe, Path(world))
        # A refresh lets the policy go before it trains.
        stages = [_as_reward(stage) if isinstance(stage, RefreshStage) else stage for stage in recipe.stages]
        plans = [_stage(recipe, stage, reader, cards, measuring) for stage in stages]
    timed = [_timed(stage, found, plans) for stage, found in zip(stages, plans, strict=True)]
    return tuple(replace(found, kind=stage.kind) for stage, found in zip(recipe.stages, timed, strict=True))


def _stage(recipe: Recipe, stage: Stage, reader: Reader, cards: Sequence[fits.Cards], measuring: bool) -> StagePlan:
    place, card = present(recipe), replace(CARD_PLACE, bf16=recipe.precision != "fp32")
    names = artifacts.models_of(recipe, stage)
    model = names.get("model")
    held = _held(recipe, stage, names, reader.world) if model is not None else None
    if held is None:
        only = Phase("working", {"process": place.process})
        return StagePlan(stage.name, stage.kind, None, None, None, (only,), notes=("no model of its own",))
    assert model is not None
    folder = folder_of(recipe, model, reader.world)
    known = _Inputs(recipe, stage, names, held, folder, reader)
    if not isinstance(stage, TrainingStage):
        drawn = _drawn(known, stage)
        phases, flops = _frozen(known, stage, place), _sampling(held.own, stage, drawn)
        verdicts = tuple(fits.judge(stage, lambda s: _parts(_frozen(known, s, card)), c) for c in cards)
        said = () if drawn is None else (drawn.said,)
        return StagePlan(
            stage.name, stage.kind, model, held.own, None, phases, flops=flops, verdicts=verdicts, notes=said
        )
    load = _load(known, stage, place)
    notes = [load.said]
    phases = training_phases(stage, held, load, place)
    flops = work.step_work(stage, held.own, load, scalar=is_scalar(stage), critic=held.critic)
    measured, time = None, None
    if measuring:
        try:
            calibrated, measured, time = _calibrated(known, stage, load, place, flops)
            phases = training_phases(stage, held, load, calibrated)
        except RuntimeError as error:
            notes.append(f"not measured: {error}")
    verdicts = tuple(fits.judge(stage, lambda s: _on_card(known, s, card), c) for c in cards)
    return StagePlan(
        stage.name, stage.kind, model, held.own, load, phases, measured, flops, time, verdicts, tuple(notes)
    )


def present(recipe: Recipe) -> Place:
    """The device that the recipe would run on here."""
    device = choose_device(recipe.device)
    bf16 = str(dtype(device, recipe.precision)).endswith("bfloat16")
    return replace(CARD_PLACE, bf16=bf16) if device.startswith("cuda") else Place(device, bf16)


def folder_of(recipe: Recipe, model: str, world: Path) -> Path | None:
    """The folder whose config a named model has; of `@stage` that of the model it comes from. None for a hub name."""
    if model.startswith("@"):
        earlier = next(s for s in recipe.stages if s.name == model[1:])
        return folder_of(recipe, artifacts.origin_of(recipe, earlier), world)
    folder = Path(resolve(model, world, recipe.seed)).expanduser()
    return folder if folder.is_dir() else None


def _counts(recipe: Recipe, model: str, world: Path) -> Counts:
    folder = folder_of(recipe, model, world)
    return counts_of(model if folder is None else str(folder))


def _held(recipe: Recipe, stage: Stage, names: Mapping[str, str], world: Path) -> Held:
    others = {key: _counts(recipe, name, world) for key, name in others_of(stage, names).items()}
    critic = _counts(recipe, names["critic"], world) if isinstance(stage, PPOStage) and "critic" in names else None
    return Held(_counts(recipe, names["model"], world), others, critic)


def _as_reward(stage: RefreshStage) -> RewardStage:
    return RewardStage(
        name=stage.name, model=stage.model, data=stage.old, adapter=stage.adapter, objective=stage.objective,
        optimizer=stage.optimizer, schedule=stage.schedule, training=stage.training,
    )  # fmt: skip


def _load(known: _Inputs, stage: TrainingStage, place: Place) -> Load:
    return known.reader.load(stage, known.folder, budget_of(stage, place), scalar=is_scalar(stage))


def _on_card(known: _Inputs, stage: Stage, card: Place) -> Sequence[Mapping[str, float]]:
    """A training stage on a GPU, phase by phase; under an adapter it may hold fewer models than without."""
    assert isinstance(stage, TrainingStage)
    held = _held(known.recipe, stage, known.names, known.reader.world)
    return _parts(training_phases(stage, held, _load(known, stage, card), card))


def _parts(phases: Sequence[Phase]) -> Sequence[Mapping[str, float]]:
    return [phase.parts for phase in phases]


def _frozen(known: _Inputs, stage: Stage, place: Place) -> tuple[Phase, ...]:
    """A stage that trains nothing."""
    assert known.held is not None
    return frozen_phases(stage, known.held, place, _drawn(known, stage))


def _drawn(known: _Inputs, stage: Stage) -> Drawn | None:
    """What such a stage samples, unknown prompts at 1,024 tokens; None where it reads what is there."""
    sampling: Sampling | None = getattr(stage, "sampling", None)
    if sampling is None or (isinstance(stage, EvaluateStage) and not stage.samples):
        return None
    assert known.held is not None
    completion = sampling.max_completion_length
    limit = max(1, min(known.held.own.positions, UNKNOWN_PROMPT + completion) - completion)
    found = known.reader.rows(stage, getattr(stage, "data", None), known.folder, limit)
    each = max(1, samples_of(stage), getattr(stage, "num_samples", 1))
    rows = min(sampling.rows or ROWS, each * (found.count or ROWS))
    prompt = max(len(group.prompt_ids) for group in found.groups)
    asked = min(getattr(stage, "num_prompts", None) or found.count, found.count)
    return Drawn(rows, -(-rows // each), prompt, completion, each, each * asked or None, found.said)


def _sampling(counts: Counts, stage: Stage, drawn: Drawn | None) -> dict[str, float]:
    """Operations of all that a stage without steps samples, a baseline of the same size included."""
    if drawn is None or drawn.answers is None:
        return {}
    models = 1 + (getattr(stage, "baseline", None) is not None)
    prompts = drawn.answers / drawn.each
    return {"sampling": models * work.decoding(counts, prompts, drawn.answers, drawn.prompt, drawn.completion)}


# Time.


def _timed(stage: Stage, plan: StagePlan, plans: Sequence[StagePlan]) -> StagePlan:
    """The plan with the time of its own measured step, else of the first other one that was measured."""
    times = ((other.name, other.time) for other in plans if other.time is not None)
    name, lent = next(((n, t) for n, t in times if plan.flops.keys() <= {*t.rates, "annotating"}), ("", None))
    if plan.time is not None or lent is None or not plan.flops or plan.counts is None:
        return plan
    said = f"at the rate of {name}'s measured step"
    seconds = work.seconds_of(plan.flops, lent.rates)
    if plan.load is None or not isinstance(stage, TrainingStage):
        return replace(plan, time=Time({}, sum(seconds.values()), lent.rates, said))
    before = work.before_work(stage, plan.counts, plan.load) / lent.rates["training"]
    steps = plan.load.steps
    return replace(
        plan, time=Time(seconds, None if steps is None else before + steps * sum(seconds.values()), lent.rates, said)
    )


# The measured step.


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stage cut to what can be measured in short: few rows, and layers only so many (None: all)."""

    stage: TrainingStage
    held: Held
    load: Load
    layers: int | None

    def expected(self, place: Place) -> Phase:
        """The fullest phase of it."""
        return fullest(training_phases(self.stage, self.held, self.load, place))

    @property
    def flops(self) -> Mapping[str, float]:
        """Operations of its steps, by phase."""
        return work.step_work(self.stage, self.held.own, self.load, scalar=is_scalar(self.stage))


def _calibrated(
    known: _Inputs, stage: TrainingStage, load: Load, place: Place, flops: Mapping[str, float]
) -> tuple[Place, float, Time]:
    """The place with the process and the allocator as measured, the measured peak, and the stage's time.

    Raises: RuntimeError saying why nothing could be measured.
    """
    if known.folder is None or stage.data is None or any(p.startswith("@") for p in artifacts.paths_of(stage.data)):
        raise RuntimeError("its rows are still to be made")
    if not (known.folder / "tokenizer.json").is_file():
        raise RuntimeError("the model's folder has no tokenizer.json")
    assert known.held is not None
    cut = _cut(known, stage, load, place, flops)
    _check_affordable(cut, place)
    found = microstep.measure(known.recipe, stage, cut.stage.training.batch_size, known.folder, cut.layers)
    rates = {name: amount / s for name, amount in cut.flops.items() if (s := found.seconds.get(name, 0.0)) > 0}
    if "training" not in rates:
        raise RuntimeError("the measured step trained nothing")
    time = _time(stage, known.held.own, load, flops, rates, found, cut.layers)
    if place.on_card:  # torch's own count there, which knows neither process nor fragments
        return place, found.peak, time
    process = found.process + LIBRARIES
    if abs(process / place.process - 1) < CLOSE:
        process = place.process
    usual = replace(place, process=process)
    expected = cut.expected(usual)
    if abs(found.peak / expected.total - 1) < CLOSE:
        return usual, found.peak, time
    heap = 1.0 + (found.peak - expected.total) / max(expected.parts["allocator"], MIB)
    return replace(usual, heap=min(MOST_HEAP, max(LEAST_HEAP, heap))), found.peak, time


def _cut(known: _Inputs, stage: TrainingStage, load: Load, place: Place, flops: Mapping[str, float]) -> _Cut:
    assert known.held is not None
    batch = stage.training.batch_size
    fewer = min(batch, max(2, math.ceil(2 * batch / load.micro_batches)))
    layers = _layers(known.held.own, microstep.STEPS * sum(flops.values()) * fewer / batch)
    small = replace(stage, training=replace(stage.training, batch_size=fewer, steps=microstep.STEPS))
    own = known.held.own if layers is None else _shallower(known.held.own, layers)
    copies = {name: own for name in known.held.others if name in ("reference", "sampler's copy")}
    return _Cut(small, Held(own, copies), _load(known, small, place), layers)


def _check_affordable(cut: _Cut, place: Place) -> None:
    """Raises: RuntimeError where the measurement itself would take too much memory or time."""
    needed, free = cut.expected(place).total, free_memory()
    if not place.on_card and free is not None and needed > 0.8 * free:
        raise RuntimeError(f"a step would take {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free here")
    if microstep.STEPS * sum(cut.flops.values()) > MOST_WORK * microstep.WORK:
        raise RuntimeError("even one layer's step would take too long here")


def _layers(counts: Counts, flops: float) -> int | None:
    """Layers to measure: fewer than the model's where the steps would take too long."""
    if flops <= microstep.WORK:
        return None
    return max(1, min(counts.layers, round(counts.layers * microstep.WORK / flops)))


def _shallower(counts: Counts, layers: int) -> Counts:
    """The counts of the same model with fewer layers."""
    share = layers / counts.layers
    trunk = counts.parameters - counts.embedding - counts.head
    return replace(
        counts,
        parameters=counts.embedding + counts.head + round(trunk * share),
        matrices=round(counts.matrices * share),
        alike=round(counts.alike * share),
        active=round(counts.active * share),
        layers=layers,
        linear=tuple((n, r, c, max(1, round(k * share))) for n, r, c, k in counts.linear),
    )


def _time(
    stage: TrainingStage, counts: Counts, load: Load, flops: Mapping[str, float], rates: Mapping[str, float],
    found: microstep.Measured, layers: int | None,
) -> Time:  # fmt: skip
    step = work.seconds_of(flops, rates)
    before = work.before_work(stage, counts, load) / rates["training"]
    said = "by a step of two micro-batches, at most" + (f", in {layers} of {counts.layers} layers" if layers else "")
    whole = None if load.steps is None else found.loading + before + load.steps * sum(step.values())
    return Time(step, whole, rates, said)
