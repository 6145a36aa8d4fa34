"""Driving the loop for one stage: resume, log, evaluate, save, stop, and leave a model folder."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strop.data.chat import Chat
from strop.data.source import Source
from strop.evaluate.sampled import write_groups
from strop.evaluate.statistics import Measure
from strop.model.adapter import layers_of
from strop.model.adapter_files import merge, save_adapter
from strop.recipes.context import Context, Interrupted, StageResult
from strop.recipes.settings import Training, TrainingStage
from strop.recipes.watching import ENDED, Ending, Monitoring
from strop.train import checkpoint
from strop.train.checkpoint import Carried
from strop.train.learner import Learner
from strop.train.loop import Annotate, Packing, Passes, Update, train
from strop.train.memory import peak_memory_mb

BEST = "best"
"""The folder of the model that the monitor would roll back to."""
CLOSING_STEPS = 10
"""A stage's closing training figures are means over its last steps."""
IDLE_STEPS = 5
"""So many steps in a row without an update raise an alarm."""
SHOWN_ROLLOUTS = 4
"""Groups of a logged step that are kept for people to read, in rollouts/step-000123.jsonl."""
NOTHING = "every group was left out: rewards equal or unscorable, or answers masked or too old"
CLOSING = (
    "loss",
    "mean_token_accuracy",
    "accuracy",
    "margin",
    "rewards/accuracies",
    "rewards/margins",
    "reward",
    "kl",
    "entropy",
    "objective/kl",
    "objective/rlhf_reward",
    "val/explained_variance",
)


Finished = tuple[Mapping[str, Measure], Mapping[str, str]]
"""Figures, and artifacts by kind (paths relative to the stage's folder)."""


@dataclass(slots=True)
class Job:
    """One training stage, ready to run.

    Attributes:
        learners: the first trains the stage's model; each other one is saved under its label.
        annotations: what completes a step's groups before they are packed, in order.
        carried: what else a checkpoint holds, by name.
        finish: called once the model is saved; may write more into the stage's folder, and gives
            more figures and artifacts.
        evaluate: figures on held-out rows, asked for at the start, the end and each `eval_every`.
        check_first: looks at the metrics of the very first optimizer step, and raises if they
            cannot be right.
        begin: words for the start block.
        monitor: looks at samples as training goes on, and may end it.
    """

    context: Context
    training: Training
    chat: Chat
    learners: tuple[Learner, ...]
    source: Source
    steps: int
    packing: Packing
    passes: Passes
    evaluate: Callable[[], dict[str, Measure]] | None
    check_first: Callable[[dict[str, float]], None] | None
    begin: Mapping[str, str]
    annotations: tuple[Annotate, ...] = ()
    carried: Mapping[str, Carried] = field(default_factory=dict)
    finish: Callable[[], Finished] | None = None
    monitor: Monitoring | None = None
    phases: dict[str, float] = field(default_factory=dict)
    num_tokens: int = 0
    checked: bool = False
    idle: int = 0
    idle_in_a_row: int = 0
    before: dict[str, Measure] = field(default_factory=dict)
    recent: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=CLOSING_STEPS))

    @property
    def checkpoints(self) -> Path:
        return self.context.stage_dir / "checkpoints"

    @property
    def learner(self) -> Learner:
        """The one that trains the stage's model."""
        return self.learners[0]


def fit(job: Job) -> StageResult:
    """Train to the last step, resuming where a checkpoint stands.

    Raises: Interrupted after saving, once a stop was asked for.
    """
    start = done = _resume(job)
    _introduce(job)
    if start == 0 and job.evaluate is not None:
        job.before = _evaluate(job, 0)
    if start == 0:
        _monitor(job, 0)
    steps = start if _ending(job) else job.steps  # one that had ended is only exported
    job.context.phase("training")
    loop = train(
        job.learners, job.source, steps=steps, start=start,
        annotations=job.annotations, packing=job.packing, passes=job.passes,
    )  # fmt: skip
    for update in loop:
        _log(job, update)
        done = update.step + 1
        if done < job.steps and job.training.eval_every and done % job.training.eval_every == 0 and job.evaluate:
            _evaluate(job, done)
        if done < job.steps:
            _monitor(job, done)
        ending = _ending(job)
        stopping = job.context.should_stop()
        if stopping or ending or (job.training.save_every and done % job.training.save_every == 0 and done < job.steps):
            _save(job, done)
        if stopping:
            raise Interrupted
        if ending:
            break
    after = _evaluate(job, done) if job.evaluate is not None and not _ending(job) else {}
    if done == job.steps:
        _monitor(job, done)
    after = _closed(job, done, after)
    artifacts = _export(job)
    figures, more = job.finish() if job.finish is not None else ({}, {})
    watched = job.monitor.figures() if job.monitor is not None else {}
    return StageResult(
        metrics={**_closing(job), **_changes(job.before, after), **watched, **figures},
        artifacts={**artifacts, **more},
        phases=dict(job.phases),
    )


def _monitor(job: Job, done: int) -> None:
    """Let the monitor look where it is due, and keep the model of its best evaluation where that is asked for."""
    monitor = job.monitor
    if monitor is None or not monitor.due(done) or done in monitor.seen:
        return
    job.context.phase("evaluating")
    began = time.perf_counter()
    with torch.no_grad():
        is_best = monitor.observe(done)
    _spent(job, "monitoring", time.perf_counter() - began)
    if is_best and monitor.settings.keeps_best:
        parts = {_parts(learner)[0]: _changing(learner.model.module) for learner in job.learners}
        checkpoint.save(job.context.stage_dir / BEST, done, parts, {}, keep=2)
    job.context.phase("training")


def _ending(job: Job) -> Ending:
    return job.monitor.ending if job.monitor is not None else ""


def _closed(job: Job, done: int, after: dict[str, Measure]) -> dict[str, Measure]:
    """Say that the monitor ended the stage, put the best model back where it is to; the figures of what is left."""
    ending = _ending(job)
    if not ending:
        return after
    if ending == "rollback":
        done = _roll_back(job)
    assert job.monitor is not None
    job.monitor.close(done)
    job.context.event("note", f"{ENDED}; the model is that of step {done}", step=done)
    return _evaluate(job, done) if job.evaluate is not None else {}


def _roll_back(job: Job) -> int:
    """Put the weights of the monitor's best evaluation back; their step."""
    found = checkpoint.load(job.context.stage_dir / BEST, lambda text: job.context.event("alarm", text))
    assert found is not None, "the first evaluation is the best so far, so there is one"
    for learner in job.learners:
        _load_weights(learner.model.module, found.tensors[_parts(learner)[0]])
    return found.step


def _introduce(job: Job) -> None:
    parameters = job.learner.parameters
    total = sum(p.numel() for p in job.learner.model.module.parameters())
    trained = sum(p.numel() for p in parameters)
    share = "all trained" if trained == total else f"{trained / total:.1%} trained"
    model = job.learner.model
    threads = torch.get_num_threads()
    runs_on = f"cpu, {threads} thread{'s'[: threads > 1]}" if model.device == "cpu" else model.device
    facts = {
        "model": f"{job.context.model} ({total / 1e6:.2f} M parameters, {share})",
        **job.begin,
        "runs on": f"{runs_on}, {model.precision_name}, {model.path} attention",
    }
    job.context.begin(facts)
    stage = job.context.stage
    if isinstance(stage, TrainingStage) and stage.adapter and stage.optimizer.lr <= type(stage)().optimizer.lr:
        text = f"optimizer.lr={stage.optimizer.lr:g} is for training in full; an adapter takes about ten times as much"
        job.context.event("note", text)


def _log(job: Job, update: Update) -> None:
    """One line of metrics: the objective's, the source's, speed and time by phase."""
    if not job.checked and update.first and job.learner.updates and job.check_first is not None:
        job.check_first(update.first)
        job.checked = True
    _watch(job, update)
    job.num_tokens += update.num_tokens
    for name, seconds in update.seconds.items():
        _spent(job, name, seconds)
    total = sum(update.seconds.values())
    metrics = dict(update.metrics)
    metrics["num_tokens"] = float(job.num_tokens)
    metrics["tokens_per_s"] = update.num_tokens / total if total > 0 else 0.0
    metrics["peak_memory_mb"] = peak_memory_mb()
    metrics.update({f"phase/{name}_s": seconds for name, seconds in update.seconds.items()})
    job.recent.append(update.metrics)
    if update.metrics.get("train/nonfinite", 0) and not math.isfinite(update.metrics.get("loss", 0.0)):
        job.context.event("nonfinite", "the loss was not finite; the step was skipped", step=update.step)
    job.context.step(update.step, job.steps, metrics)
    _show_rollouts(job, update)


def _show_rollouts(job: Job, update: Update) -> None:
    """Keep a few sampled groups of each logged step, and show some of the first and the last."""
    done, samples = update.step + 1, update.collected.samples
    if not samples or not (done in (1, job.steps) or done % job.training.log_every == 0):
        return
    folder = job.context.stage_dir / "rollouts"
    folder.mkdir(exist_ok=True)
    write_groups(folder / f"step-{done:06d}.jsonl", samples[:SHOWN_ROLLOUTS])
    if done in (1, job.steps):
        job.context.samples(done, samples[:SHOWN_ROLLOUTS])


def _watch(job: Job, update: Update) -> None:
    """Count steps without an update, and say when they pile up."""
    job.idle_in_a_row = 0 if update.first else job.idle_in_a_row + 1
    job.idle += not update.first
    if job.idle_in_a_row == IDLE_STEPS:
        text = f"{IDLE_STEPS} steps in a row trained nothing: {NOTHING}; look at the rewards and their reasons"
        job.context.event("alarm", text, step=update.step)
    if update.step + 1 == job.steps and 2 * job.idle > job.steps:
        job.context.event("alarm", f"{job.idle} of {job.steps} steps trained nothing: {NOTHING}", step=update.step)


def _spent(job: Job, phase: str, seconds: float) -> None:
    job.phases[phase] = job.phases.get(phase, 0.0) + seconds


def _evaluate(job: Job, step: int) -> dict[str, Measure]:
    assert job.evaluate is not None
    job.context.phase("evaluating")
    began = time.perf_counter()
    with torch.no_grad():
        found = job.evaluate()
    _spent(job, "evaluating", time.perf_counter() - began)
    told = ", ".join(f"{name} {measure.value:.4g}" for name, measure in list(found.items())[:4])
    values = {name: measure.value for name, measure in found.items()}
    job.context.event("evaluate", f"held out at step {step}: {told}", step=step, metrics=values)
    job.context.phase("training")
    return found


def _resume(job: Job) -> int:
    """Put back the newest good checkpoint; the step to go on from."""
    needed = [part for learner in job.learners for part in _parts(learner)]
    found = checkpoint.load(job.checkpoints, lambda text: job.context.event("alarm", text), needed)
    if found is None:
        job.context.rewind(0)
        return 0
    for learner, state in zip(job.learners, found.state["learners"], strict=True):
        model, optimizer = (found.tensors[part] for part in _parts(learner))
        _load_weights(learner.model.module, model)
        learner.optimizer.load_state_dict(checkpoint.unflatten_optimizer(optimizer, state["optimizer"]))
        learner.updates, learner.skipped = int(state["updates"]), int(state["skipped"])
        learner.skipped_in_a_row = int(state["skipped_in_a_row"])
    for name, carried in _carried(job).items():
        carried.restore(found.tensors.get(f"carried-{name}", {}), found.state["carried"][name])
    job.num_tokens = int(found.state["num_tokens"])
    job.checked = job.learner.updates > 0
    job.idle, job.idle_in_a_row = int(found.state["idle"]), int(found.state["idle_in_a_row"])
    job.phases.update(found.state["phases"])
    job.before = {name: Measure.from_json(value) for name, value in found.state["before"].items()}
    job.recent.extend(found.state["recent"])
    job.context.rewind(found.step)
    return found.step


def _carried(job: Job) -> Mapping[str, Carried]:
    """What a checkpoint holds besides the learners, the monitor's memory among it."""
    return job.carried if job.monitor is None else {**job.carried, "monitor": job.monitor}


def _load_weights(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in _changing(module).items():
            tensor.copy_(tensors[name])


def _changing(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's state without its frozen parameters, which are where they came from (under an adapter, most)."""
    named = module.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def _save(job: Job, step: int) -> None:
    job.context.phase("saving")
    began = time.perf_counter()
    parts: dict[str, Mapping[str, torch.Tensor]] = {}
    learners = []
    for learner in job.learners:
        tensors, plain = checkpoint.flatten_optimizer(learner.optimizer.state_dict())
        parts.update(zip(_parts(learner), (_changing(learner.model.module), tensors), strict=True))
        counts = {"updates": learner.updates, "skipped": learner.skipped, "skipped_in_a_row": learner.skipped_in_a_row}
        learners.append({"optimizer": plain, **counts})
    parts.update({f"carried-{name}": found for name, c in _carried(job).items() if (found := c.tensors())})
    state: dict[str, Any] = {
        "learners": learners,
        "carried": {name: dict(c.plain()) for name, c in _carried(job).items()},
        "num_tokens": job.num_tokens,
        "idle": job.idle,
        "idle_in_a_row": job.idle_in_a_row,
        "phases": dict(job.phases),
        "before": {name: measure.to_json() for name, measure in job.before.items()},
        "recent": [{k: v for k, v in row.items() if math.isfinite(v)} for row in job.recent],
    }
    path = checkpoint.save(job.checkpoints, step, parts, state, job.training.keep)
    _spent(job, "saving", time.perf_counter() - began)
    job.context.event("checkpoint", f"saved {path.name}", step=step)
    job.context.phase("training")


def _parts(learner: Learner) -> tuple[str, str]:
    """The names of a learner's weights and optimizer state in a checkpoint."""
    return (f"{learner.label}-model", f"{learner.label}-optimizer") if learner.label else ("model", "optimizer")


def _export(job: Job) -> dict[str, str]:
    """Each finished model as an ordinary Hugging Face folder, tokenizer and chat template with it.

    An adapter is left in a folder of its own, and in the model's folder is folded into the weights.
    """
    job.context.phase("saving")
    began = time.perf_counter()
    if job.chat.tokenizer.chat_template is None:
        job.chat.tokenizer.chat_template = job.chat.template
    left = []
    for learner in job.learners:
        module, name = learner.model.module, learner.label or "model"
        if layers_of(module):
            left.append(f"{learner.label}-adapter" if learner.label else "adapter")
            _leave_adapter(job, module, left[-1])
        module.save_pretrained(job.context.stage_dir / name)
        left.append(name)
    for name in left:
        job.chat.tokenizer.save_pretrained(job.context.stage_dir / name)
    _spent(job, "saving", time.perf_counter() - began)
    return {name: name for name in left}


def _leave_adapter(job: Job, module: Any, name: str) -> None:
    """Save a module's adapter, and fold it in."""
    base = module.name_or_path or job.context.model
    save_adapter(module, job.context.stage_dir / name, str(Path(base).resolve()) if Path(base).is_dir() else base)
    worst = merge(module)
    text = f"the adapter is in {name}/, and folded into the model (largest difference in a logit: {worst:.2g})"
    job.context.event("note", text)


def _closing(job: Job) -> dict[str, Measure]:
    """Means over the last steps, without an interval: steps are not independent draws."""
    out = {}
    for name in CLOSING:
        values = [row[name] for row in job.recent if name in row]
        if values:
            out[f"train/{name}"] = Measure(float(np.mean(values)), None, None, len(values))
    return out


def _changes(before: Mapping[str, Measure], after: Mapping[str, Measure]) -> dict[str, Measure]:
    """Held-out figures after training, and before it under `before/`."""
    return {**after, **{f"before/{name}": measure for name, measure in before.items()}}
