"""The model card: README.md with the front matter that Hugging Face reads, and the same as ship.json for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from strop import __version__
from strop.evaluate.statistics import Measure
from strop.model.adapter import base_of
from strop.recipes import artifacts
from strop.recipes.journal import read_json
from strop.recipes.licences import Licence, licences_of
from strop.recipes.settings import Data, EvaluateStage, ShipStage, TrainingStage
from strop.recipes.shipping.folder import Folder
from strop.recipes.shipping.gate import Asked, Gate
from strop.recipes.shipping.left import Entry, Left, Subject
from strop.recipes.shipping.rules import Outcome
from strop.recipes.shipping.serving import commands

HUB = re.compile(r"[\w.-]+/[\w.-]+\Z")
"""What a hub's name looks like."""
RECIPE = "recipe.yaml"
"""The run's config.yaml in the folder: every setting, whatever file or call the command named."""
SHORT = 12
"""Digits of a hash that a table shows; ship.json has all of them."""
TRAINED = ("data", "old")
"""Settings of data that a stage learns from."""
KNOWN = re.compile(r"[a-z0-9.-]+\Z")
"""What Hugging Face's names of licences look like."""


@dataclass(frozen=True, slots=True)
class Card:
    """All that a card is made of.

    Attributes: name: the model's. forced: it ships although the gate did not pass. command: what shipped it.
    """

    name: str
    subject: Subject
    settings: ShipStage
    gate: Gate
    folder: Folder
    forced: bool
    command: str

    @property
    def left(self) -> Left:
        return self.subject.left

    @property
    def start(self) -> str:
        """The model that training began with, as the recipe names it."""
        try:
            start = self.left.start_of(self.subject.stage)
        except ValueError:
            return ""
        return base_of(start) if Path(start).is_dir() else start

    @property
    def stages(self) -> list[Entry]:
        """The stages that the model came from, in order."""
        names = self.left.ancestors(self.subject.stage)
        return [entry for entry in self.left.done if entry["name"] in names]

    @property
    def run_command(self) -> str:
        """What made the run."""
        said = read_json(self.left.run_dir / "summary.json") or {}
        return str(said.get("command") or f"strop run {self.left.run_dir}")


def readme(card: Card) -> str:
    """The card as Markdown behind its front matter."""
    licences = licences_at(card.left)
    head = yaml.safe_dump(front_matter(card, licences), sort_keys=False, allow_unicode=True)
    sections = [
        _opening(card),
        _use(card),
        _evaluation(card),
        _making(card),
        _data(card, licences),
        _limits(card, licences),
        _again(card),
    ]
    return f"---\n{head}---\n\n" + "\n".join("\n".join(lines) + "\n" for lines in sections)


def as_json(card: Card) -> dict[str, Any]:
    """What the card says, for programs."""
    keys = ("name", "kind", "inputs", "input_hashes", "artifact_hashes", "data", "hash", "version")
    return {
        "name": card.name,
        "strop": __version__,
        "run": card.left.run_dir.resolve().name,
        "stage": card.subject.stage,
        "model_sha256": card.subject.hash,
        "sha256": card.folder.sha256,
        "base": card.start,
        "gate": card.gate.to_json(),
        "forced": card.forced,
        "compared": card.folder.compared.to_json(),
        "lineage": [{key: entry[key] for key in keys if key in entry} for entry in card.stages],
        "licences": {name: found.to_json() for name, found in licences_at(card.left).items()},
        "seed": card.left.recipe.seed,
        "command": card.run_command,
        "ship_command": card.command,
    }


def licences_at(left: Left) -> dict[str, Licence]:
    """The licences as the run wrote them down; of an older run, as they are stated now."""
    said = (read_json(left.run_dir / "summary.json") or {}).get("licences")
    if not isinstance(said, dict):
        return licences_of(left.recipe)
    return {name: Licence(found.get("licence"), found.get("source")) for name, found in said.items()}


def front_matter(card: Card, licences: Mapping[str, Licence]) -> dict[str, Any]:
    """What Hugging Face reads of a card."""
    apart = card.folder.base is not None
    found: dict[str, Any] = _licence(licences.get(card.start, Licence()).licence)
    base = (card.folder.base if apart else card.start) or ""
    if HUB.match(base) and not card.left.was_folder(base):
        found |= {"base_model": base, "base_model_relation": "adapter" if apart else "finetune"}
    hub = dict.fromkeys(path for entry in card.stages for path in _hub_data(card.left, entry))
    if hub:
        found["datasets"] = list(hub)
    found |= {"library_name": "peft" if apart else "transformers", "pipeline_tag": "text-generation"}
    found["tags"] = [
        "strop",
        *dict.fromkeys(_method(card.left, entry) for entry in card.stages if _trains(card.left, entry)),
    ]
    results = [_result(card, outcome) for outcome in card.gate.outcomes if _scored(outcome)]
    if results:
        found["model-index"] = [{"name": card.name, "results": results}]
    return found


def _licence(name: str | None) -> dict[str, Any]:
    if name is None:
        return {"license": "unknown"}
    return {"license": name} if KNOWN.match(name) else {"license": "other", "license_name": name}


def _result(card: Card, outcome: Outcome) -> dict[str, Any]:
    assert outcome.ours is not None
    asked = next((a.question.stage for a in card.gate.asked if a.question.of == outcome.of), None)
    paths = artifacts.paths_of(asked.data) if asked and asked.data else (outcome.of,)
    named = ", ".join(Path(path).name for path in paths)
    metric = {"type": outcome.metric.removeprefix("-"), "value": round(outcome.ours.value, 6)}
    metric["name"] = f"{metric['type']} (95 % interval {_interval(outcome.ours)}, n={outcome.ours.n})"
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": f"{outcome.of}: {named}", "type": re.sub(r"[^\w.-]+", "-", named)},
        "metrics": [metric],
    }


# The text.


def _opening(card: Card) -> list[str]:
    methods = ", then ".join(_method(card.left, entry) for entry in card.stages if _trains(card.left, entry))
    kind = "An adapter for" if card.folder.base else "Fine-tuned from"
    lines = [
        f"# {card.name}",
        "",
        f"{kind} `{_cell(card.folder.base or card.start or 'an unnamed model')}` by {methods or 'strop'}.",
    ]
    if card.gate.passed:
        lines += ["", f"It passed its gate: {_verdicts(card.gate)}."]
        return lines
    assert card.forced
    lines += ["", "> **It did not pass its gate and was shipped by force** (`--force`):", ">"]
    return [*lines, *(f"> - {_cell(reason)}" for reason in card.gate.reasons)]


def _verdicts(gate: Gate) -> str:
    parts = [f"{_cell(o.of)}: {_cell(o.why)}" for o in gate.outcomes]
    return "; ".join(parts) or "no alarm was open"


def _use(card: Card) -> list[str]:
    here = commands(Path(card.name), card.folder.base, card.folder.rank)
    lines = ["## Use", "", "```python"]
    if card.folder.base is None:
        lines += ["from transformers import pipeline", "", f'ask = pipeline("text-generation", model="{card.name}")']
    else:
        lines += ["from peft import AutoPeftModelForCausalLM"]
        lines += ["from transformers import AutoTokenizer, GenerationConfig, pipeline", ""]
        lines += [f'model = AutoPeftModelForCausalLM.from_pretrained("{card.name}")']
        lines += [f'model.generation_config = GenerationConfig.from_pretrained("{card.name}")  # what ends an answer']
        lines += [
            f'ask = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained("{card.name}"))'
        ]
    prompt = '"Hello"' if card.folder.plain else '[{"role": "user", "content": "Hello!"}]'
    lines += [f'print(ask({prompt}, max_new_tokens=100)[0]["generated_text"])', "```", ""]
    if card.folder.plain:
        lines += ["Its prompts are plain texts: ask a server for completions, not for chat.", ""]
    titles = {"vllm": "vLLM", "ollama": "Ollama", "transformers": "transformers"}
    for who, told in here.items():
        lines += [f"{titles[who]}:", "", *(f"    {line}" for line in told), ""]
    if card.folder.gguf is None:
        lines += ["Ollama reads the safetensors of some architectures only; for others ship with `gguf=f16`.", ""]
    return [*lines, f"Checked {card.folder.compared}.{_folded(card)}"]


def _folded(card: Card) -> str:
    if card.folder.not_folded:
        return f" The adapter was folded in by the run; the two were not compared here, since {card.folder.not_folded}."
    if card.folder.compared.folded is None:
        return ""
    found = f"{card.folder.compared.folded:.2g}"
    return f" Largest difference in a logit between the merged model and the adapter on its base: {found}."


def _evaluation(card: Card) -> list[str]:
    rows = [_row(outcome) for outcome in (*card.gate.outcomes, *card.gate.watched) if outcome.ours is not None]
    lines = ["## Evaluation", ""]
    if not rows:
        return [*lines, "Nothing was evaluated."]
    rivals = ", ".join(sorted({a.rival for a in card.gate.asked if a.rival})) or "none"
    lines += _table(
        ("set", "reward", f"compared with ({_cell(rivals)})", "this model", "difference", "limit", "n", "gate"), rows
    )
    lines += ["", "Brackets are 95 % intervals by bootstrap over prompts; differences are paired prompt by prompt."]
    return [*lines, *(f"`{_cell(a.question.of)}`: {_asked(a.question.stage)}." for a in card.gate.asked)]


def _row(outcome: Outcome) -> tuple[str, ...]:
    assert outcome.ours is not None
    limit = (
        ""
        if outcome.limit is None
        else f"{'loss at most' if outcome.rule == 'margin' else 'floor'} {outcome.limit:.3g}"
    )
    metric = outcome.metric.removeprefix("-") + (" (less is better)" if outcome.metric.startswith("-") else "")
    theirs, change = _figure(outcome.theirs), _figure(outcome.change, sign="+")
    n = str((outcome.change or outcome.ours).n)
    said = "" if outcome.rule == "watched" else outcome.verdict
    return outcome.of, metric, theirs, _figure(outcome.ours), change, limit, n, said


def _asked(stage: EvaluateStage) -> str:
    paths = ", ".join(artifacts.paths_of(stage.data)) if stage.data else "no data"
    if not stage.rewards:
        return f"the likelihood of the answers in {_cell(paths)}"
    how = "greedy" if stage.sampling.temperature == 0 else f"temperature {stage.sampling.temperature:g}"
    judges = ", ".join(reward.label or reward.name for reward in stage.rewards)
    answers = "one answer" if stage.num_samples == 1 else f"{stage.num_samples} answers"
    return f"{answers} ({how}) to each prompt of {_cell(paths)}, scored by {_cell(judges)}"


def _making(card: Card) -> list[str]:
    rows = []
    if card.start:
        first = next(
            (e["input_hashes"].get("model", "") for e in card.stages if e.get("inputs", {}).get("model") == card.start),
            "",
        )
        rows.append((card.start, "start", "", "", first[:SHORT]))
    for entry in card.stages:
        if "model" in entry["artifacts"] or "adapter" in entry["artifacts"]:
            hashes = entry["artifact_hashes"]
            before = str(entry.get("inputs", {}).get("model", "")).removeprefix("@")
            told = (hashes.get("model") or hashes.get("adapter", ""))[:SHORT]
            rows.append((entry["name"], _method(card.left, entry), before, _settings(card.left, entry), told))
    return ["## How it was made", "", *_table(("stage", "method", "from", "settings", "sha256"), rows)]


def _settings(left: Left, entry: Entry) -> str:
    stage = next((s for s in left.recipe.stages if s.name == entry["name"]), None)
    if not isinstance(stage, TrainingStage):
        return ""
    amount = (
        f"{stage.training.steps} steps" if stage.training.steps is not None else f"{stage.training.epochs:g} epochs"
    )
    adapter = f", LoRA r={stage.adapter.r}" if stage.adapter else ""
    return f"{amount} x {stage.training.batch_size}, {stage.optimizer.name} lr {stage.optimizer.lr:g}{adapter}"


def _data(card: Card, licences: Mapping[str, Licence]) -> list[str]:
    rows = []
    for entry in card.stages:
        use = entry.get("data") or {}
        for path in _paths(card.left, entry):
            found = licences.get(path, Licence()).licence or ("" if path.startswith("@") else "not stated")
            kept = f"{use['kept']} of {use['rows']}" if "kept" in use and "rows" in use else ""
            rows.append((entry["name"], path, kept, str(use.get("sha256") or "")[:SHORT], found))
    lines = ["## Data", ""]
    if not rows:
        return [*lines, "None is recorded."]
    return [*lines, *_table(("stage", "path", "rows kept", "sha256", "licence"), rows)]


def _limits(card: Card, licences: Mapping[str, Licence]) -> list[str]:
    return ["## Limits", "", *(f"- {text}" for text in limits(card, licences))]


def limits(card: Card, licences: Mapping[str, Licence]) -> Iterator[str]:
    """What the reader must not take for granted."""
    if not any(_scored(outcome) for outcome in card.gate.outcomes):
        yield "Its answers were never scored on held-out prompts: nothing is known of its quality."
    for outcome in card.gate.outcomes:
        if outcome.verdict == "unclear":
            yield f"Not settled: {_cell(outcome.of)}: {_cell(outcome.why)}."
    if not card.settings.safety:
        yield "Safety was not evaluated."
    if not card.settings.capability:
        yield "What it may have unlearned beyond the evaluation above was not measured."
    for alarm in card.gate.alarms:
        state = "open" if alarm.is_open else f"closed: the model is that of step {alarm.kept}"
        yield f"Alarm of `{alarm.stage}` at step {alarm.step} ({state}): {_cell(alarm.text)}"
    for asked in card.gate.asked:
        yield from _overlap(asked)
    yield f"One run, seed {card.left.recipe.seed}: intervals tell how prompts differ, not how another seed would."
    lengths = [s.training.max_length for s in card.left.recipe.stages if isinstance(s, TrainingStage)]
    if lengths:
        yield f"Trained on sequences of at most {max(lengths)} tokens."
    if card.start and card.left.was_folder(card.start) and not Path(card.start).expanduser().is_dir():
        yield f"`{_cell(card.start)}` was not at hand when this was exported: its licence files are not in this folder."
    if card.start and licences.get(card.start, Licence()).licence is None:
        yield f"No licence of `{_cell(card.start)}` was found; see to it before you pass this model on."
    unknown = {path for e in card.stages for path in _paths(card.left, e) if not path.startswith("@")}
    unknown = {path for path in unknown if licences.get(path, Licence()).licence is None}
    if unknown:
        yield f"No licence is stated of the data {', '.join(f'`{_cell(path)}`' for path in sorted(unknown))}."
    if card.folder.base is not None and Path(card.folder.base).is_absolute():
        yield f"The adapter names its base by a path, `{_cell(card.folder.base)}`; adapter_config.json must say yours."
    yield "What was true of the model it came from (its biases, its errors) is likely still true."


def _overlap(asked: Asked) -> Iterator[str]:
    """Prompts of an evaluation that stand in what the model was trained on."""
    seen = asked.question.ours
    entry = (seen.left.entry(seen.name) if seen else None) or {}
    for found in (entry.get("data") or {}).get("overlap") or ():
        if found.get("shared"):
            what = f"{found['shared']} of {found.get('prompts', '?')} prompts of `{_cell(asked.question.of)}`"
            yield f"{what} overlap with what `{_cell(found.get('stage', ''))}` was trained on: its figures may flatter."


def _again(card: Card) -> list[str]:
    lines = ["## Again", "", f"strop {__version__}, seed {card.left.recipe.seed}. Trained by", ""]
    lines += [
        f"    {card.run_command}",
        "",
        "which is, with every setting written out,",
        "",
        f"    strop run {RECIPE}",
        "",
    ]
    lines += ["where the models and data of its paths are those of the hashes above; shipped by", ""]
    lines += [f"    {card.command}", ""]
    return [*lines, "Hashes and figures in full: `ship.json`."]


# Pieces.


def _paths(left: Left, entry: Entry) -> list[str]:
    """The data paths of a stage, as the recipe names them; not those of evaluations."""
    return [path for data in _sources(left, entry) for path in artifacts.paths_of(data)]


def _sources(left: Left, entry: Entry) -> list[Data]:
    stage = next((s for s in left.recipe.stages if s.name == entry["name"]), None)
    if stage is None or isinstance(stage, EvaluateStage):
        return []
    return [data for key, data in artifacts.sources_of(stage).items() if key in TRAINED]


def _hub_data(left: Left, entry: Entry) -> Iterator[str]:
    """The data sets that a stage took from the hub; a path that is none from here may look like one."""
    read = entry.get("input_hashes", {}).values()
    for data in _sources(left, entry):
        for path in artifacts.paths_of(data):
            if HUB.match(path) and not Path(path).exists():
                with suppress(ValueError):  # of a path that could only be a file
                    if artifacts.hash_data(path, data.split, left.recipe.seed) in read:
                        yield path


def _trains(left: Left, entry: Entry) -> bool:
    return "model" in entry.get("artifacts", {}) or "adapter" in entry.get("artifacts", {})


def _method(left: Left, entry: Entry) -> str:
    """What a stage does: its objective's name, or its kind."""
    stage = next((s for s in left.recipe.stages if s.name == entry["name"]), None)
    objective = getattr(stage, "objective", None)
    return str(getattr(objective, "name", None) or entry["kind"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)]


def _cell(text: str) -> str:
    """A text that stays in its cell and is no markup of its own."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _scored(outcome: Outcome) -> bool:
    return outcome.ours is not None and outcome.ours.n > 0


def _figure(found: Measure | None, sign: str = "") -> str:
    if found is None:
        return ""
    if not found.n:
        return "unscored"
    return f"{found.value:{sign}.3f} {_interval(found, sign)}".strip()


def _interval(found: Measure, sign: str = "") -> str:
    if found.low is None or found.high is None:
        return ""
    return f"[{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
