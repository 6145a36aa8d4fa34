"""One stage's memory: what each of its phases holds, by what it is for, and the fullest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strop.recipes import artifacts
from strop.recipes.kinds.ppo import SHARED
from strop.recipes.methods import asks_before, holds_reference
from strop.recipes.parts import Optimizer
from strop.recipes.planning import memory
from strop.recipes.planning.counts import Counts
from strop.recipes.planning.loads import Load
from strop.recipes.planning.place import (
    ACTS_CUT_TWICE,
    ACTS_CUT_UP,
    ACTS_SHARE,
    CARD_SHARE,
    HOLES,
    MOST_HOLES,
    STATES_SHARE,
    Place,
)
from strop.recipes.settings import (
    OnPolicyStage,
    PPOStage,
    ProcessStage,
    RewardStage,
    RLStage,
    Stage,
    TrainingStage,
)
from strop.train.optim import Muon

ROWS = 256
"""Completions sampled side by side where a recipe does not say (`rollout.sampler`)."""
BUDGET = {"cpu": 4096, "cuda": 16384}
"""Packed tokens of a micro-batch where a recipe does not say (`stages.common`)."""
PASSING = ("activations", "logits", "kv cache", "optimizer's own")
"""What comes and goes within a step."""
Parts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Phase:
    """What is held while a stage does one thing, bytes by what it is for."""

    name: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """All of it, bytes."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Held:
    """The models of a stage.

    Attributes:
        own: the one it starts from. others: frozen ones beside it, by what they are for.
        critic: that a critic of its own starts from; None where it starts from the same model.
    """

    own: Counts
    others: Mapping[str, Counts]
    critic: Counts | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a stage that trains nothing samples: rows side by side, of so many prompts, and the longest of both.

    Attributes:
        answers: all that it draws, of `each` a prompt; None where its prompts are not known.
        said: where the prompts' lengths come from.
    """

    rows: int
    prompts: int
    prompt: int
    completion: int
    each: int
    answers: int | None
    said: str


def budget_of(stage: TrainingStage, place: Place) -> int:
    """Packed tokens that a micro-batch holds at most."""
    return stage.training.micro_batch_tokens or BUDGET["cuda" if place.on_card else "cpu"]


def is_scalar(stage: Stage) -> bool:
    """Whether the trained model ends in one number."""
    return isinstance(stage, RewardStage | ProcessStage)


def fullest(phases: tuple[Phase, ...]) -> Phase:
    """The phase that holds most."""
    return max(phases, key=lambda phase: phase.total)


def training_phases(stage: TrainingStage, held: Held, load: Load, place: Place) -> tuple[Phase, ...]:
    """Everything a training stage goes through, with what the process and its allocator take."""
    kept = memory.kept_in(place.device, place.bf16, stage.adapter)
    own = held.own.scalar if is_scalar(stage) else held.own
    policy = memory.states(own, stage.optimizer, kept, stage.adapter)
    net = _Net(own, kept, policy, stage.optimizer, is_scalar(stage))
    base: Parts = {"weights": policy.weights, **_others(held, place)}
    if isinstance(stage, PPOStage) and stage.critic != SHARED:
        trunk = (held.critic or own).scalar
        value = memory.states(trunk, stage.critic_optimizer, kept, stage.adapter)
        critic = _Net(trunk, kept, value, stage.critic_optimizer, True, "critic: ")
        phases = _steps(stage, critic, load, {**base, "critic": value.weights}, {
            "optimizer": policy.optimizer + value.optimizer})  # fmt: skip
        base["critic"] = value.weights + value.optimizer
    else:
        phases = ()
    phases += _steps(stage, net, load, base, {"optimizer": policy.optimizer})
    later = load.steps != 1 or isinstance(stage, PPOStage)
    standing = {**base, "optimizer": policy.optimizer if later else 0.0}
    if isinstance(stage, OnPolicyStage):
        phases += (Phase("sampling", {**standing, "kv cache": sampling_bytes(stage, own, load, place)}),)
    if asks_before(stage) or holds_reference(stage):
        tokens = min(BUDGET["cuda" if place.on_card else "cpu"], max(load.tokens, round(load.step_tokens)))
        read = round(tokens * load.read / max(1, load.tokens))
        asked = memory.forward(own, kept, tokens) + memory.logits(own, read, trained=False)
        phases += (Phase("asking the reference", {**standing, "activations": asked}),)
    loaded = {"weights": policy.weights, "logits": 0.0 if is_scalar(stage) else memory.probe(own)}
    phases += (Phase("loading", loaded),)
    return tuple(with_overhead(phase, stage, place) for phase in phases)


def _others(held: Held, place: Place) -> Parts:
    """Frozen models beside the trained one: fp32 on CPU, 2 bytes a weight in bf16."""
    return {name: counts.parameters * (2 if place.bf16 else 4) for name, counts in held.others.items()}


@dataclass(frozen=True, slots=True)
class _Net:
    """A network in training: a policy, or with `scalar` one that ends in a number, a reward model or critic.

    Attributes: whole: bytes of the embedding's gradient, which each backward makes anew, and so the head's.
    """

    counts: Counts
    kept: memory.Kept
    states: memory.States
    optimizer: Optimizer
    scalar: bool
    label: str = ""

    def whole(self, stage: TrainingStage) -> float:
        return 0.0 if stage.adapter is not None else memory.FP32 * self.counts.embedding

    @property
    def tied(self) -> bool:
        """Whether the head's gradient waits for the embedding's."""
        return not self.counts.head and not self.scalar


def _steps(stage: TrainingStage, net: _Net, load: Load, base: Parts, moments: Parts) -> tuple[Phase, ...]:
    """The phases of an optimizer step: the backward of a first and of a later micro-batch, its end, and the update.

    Before the first update there are no moments; from the second micro-batch on there are gradients from its start.
    A block as large as the embedding, once freed, is rarely taken again, for the next one has to be aligned, too.
    """
    updates = load.steps != 1 or (isinstance(stage, RLStage | PPOStage) and stage.passes * stage.minibatches > 1)
    several, whole = load.micro_batches > 1, net.whole(stage)
    holes = {"allocator": min(MOST_HOLES, HOLES * load.micro_batches) * whole} if several else {}
    before = {**base, **{name: size if updates else 0.0 for name, size in moments.items()}, **holes}
    gradients = net.states.gradients
    first = _backward(stage, net, load.tokens, load.read, before, 0.0)
    later = _backward(stage, net, load.later, load.later_read, before, gradients) if load.later else ()
    at_end = {**before, "gradients": gradients + whole * (net.tied + several)}
    extra = memory.optimizer_extra(net.counts, net.optimizer, stage.adapter)
    update = {**base, **moments, **holes, "gradients": gradients, "optimizer's own": extra}
    return (
        *first,
        *later,
        Phase(f"{net.label}the end of the backward", at_end),
        Phase(f"{net.label}the update", update),
    )


def _backward(
    stage: TrainingStage, net: _Net, tokens: int, read: int, before: Parts, gradients: float
) -> tuple[Phase, ...]:
    """The head's backward, with all activations there, and the layers', without the last one's."""
    own, kept, whole = net.counts, net.kept, net.whole(stage)
    again = stage.training.gradient_checkpointing
    acts = memory.activations(own, kept, tokens, read, checkpointing=again, adapter=stage.adapter)
    left = acts if again else min(acts, tokens * (own.layers - 1) * memory.layer(own, kept, stage.adapter))
    at_head = {
        "gradients": gradients + (0.0 if net.scalar else whole),
        "activations": acts + memory.backward(own, kept, tokens if again else read),
        "logits": 0.0 if net.scalar else memory.logits(own, read, trained=True),
    }
    below = {
        "gradients": gradients + (whole if net.tied else 0.0),
        "activations": left + memory.backward(own, kept, tokens),
    }
    return (
        Phase(f"{net.label}the head's backward", {**before, **at_head}),
        Phase(f"{net.label}the layers' backward", {**before, **below}),
    )


def sampling_bytes(stage: OnPolicyStage, own: Counts, load: Load, place: Place) -> float:
    """Keys, values and logits of what is decoded side by side."""
    rows = min(stage.sampling.rows or ROWS, load.sampled)
    kept = memory.kept_in(place.device, place.bf16, stage.adapter)
    prompts = min(stage.training.batch_size, rows)
    return memory.cache(own, kept, rows=rows, prompts=prompts, prompt=load.prompt, completion=load.completion)


def frozen_phases(stage: Stage, held: Held, place: Place, drawn: Drawn | None) -> tuple[Phase, ...]:
    """A stage that trains nothing: loading, then answering or reading."""
    kept = memory.kept_in(place.device, place.bf16, None)
    weights = held.own.parameters * (2 if place.bf16 else 4)
    base: Parts = {"weights": weights, **_others(held, place)}
    loading = Phase("loading", {"weights": weights, "logits": memory.probe(held.own)})
    if drawn is not None:
        used = memory.cache(
            held.own, kept, rows=drawn.rows, prompts=drawn.prompts, prompt=drawn.prompt, completion=drawn.completion
        )
        working = Phase("sampling", {**base, "kv cache": used})
    else:
        tokens = BUDGET["cuda" if place.on_card else "cpu"]
        used = memory.forward(held.own, kept, tokens) + memory.logits(held.own, tokens, trained=False)
        working = Phase("reading", {**base, "activations": used})
    return tuple(with_overhead(phase, stage, place) for phase in (loading, working))


def with_overhead(phase: Phase, stage: Stage, place: Place) -> Phase:
    """The phase with what the allocator takes besides, and the process."""
    adapter = isinstance(stage, TrainingStage) and stage.adapter is not None
    process = place.process + (place.peft if adapter else 0.0)
    parts = {**phase.parts, "allocator": place.heap * _besides(phase, stage, place), "process": process}
    return Phase(phase.name, parts)


def _besides(phase: Phase, stage: Stage, place: Place) -> float:
    """What the allocator usually takes besides. On a CPU weights are pages of their file, and in no heap."""
    holes = phase.parts.get("allocator", 0.0)
    if place.on_card:
        return CARD_SHARE * (phase.total - holes)
    passing = sum(phase.parts.get(name, 0.0) for name in PASSING)
    standing = sum(phase.parts.get(name, 0.0) for name in ("gradients", "optimizer", "critic"))
    return holes + STATES_SHARE * standing + _share(stage) * passing


def _share(stage: Stage) -> float:
    """Of what comes and goes: more where small blocks that stay fall among what is freed."""
    if not isinstance(stage, TrainingStage):
        return ACTS_SHARE
    adapter, again = stage.adapter is not None, stage.training.gradient_checkpointing
    if adapter and again:
        return ACTS_CUT_TWICE
    return ACTS_CUT_UP if adapter or again or isinstance(stage.optimizer, Muon) else ACTS_SHARE


def others_of(stage: Stage, names: Mapping[str, str]) -> dict[str, str]:
    """Frozen models held beside the stage's own while it works, by what they are for, as names of models.

    Args: names: every model that the stage names, as `artifacts.models_of` gives them.
    """
    found: dict[str, str] = {}
    own = names.get("model", "")
    if isinstance(stage, TrainingStage):
        if holds_reference(stage) and (stage.adapter is None or names.get("reference")):
            found["reference"] = names.get("reference", own)
        monitor = artifacts.monitor_of(stage)
        if monitor is not None and monitor.kl and stage.adapter is None and "reference" not in found:
            found["monitor's copy"] = own
        if isinstance(stage, RLStage) and stage.sync_every > 1:
            found["sampler's copy"] = own
    for key, name in names.items():
        if key not in ("model", "reference", "critic", "baseline", "policy") and not key.startswith("members"):
            found[key.removesuffix(".path")] = name
    return found
