"""What each round of a repeat did, from what its stages left: whose answers, to what, what was kept, what came of it.

A stage `sample-2` is round 2's of `sample`. Everything here stands in the stages' own entries as well; this brings
together what belongs together, so that a round can be read, compared with the one before, and gone on from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strop.recipes.words import brief

Entry = Mapping[str, Any]

NUMBERED = re.compile(r"(.+)-([1-9]\d*)")
SCORERS = ("reward", "refresh", "process")
ANSWERERS = ("sample", "rl", "ppo", "online", "refresh")
"""Kinds for which a model answers prompts: their own, or of a refresh the policy."""
MAKERS = ("sft", "preference", "unpaired", "rl", "ppo", "online", "average")
"""Kinds that leave a policy."""
DONE = ("finished", "reused")


def rounds_of(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The rounds in order; none where no stage is numbered.

    Returns: of each round its `round`, `state` and `stages`, and what there is of: `policy`, the model whose answers
        it began with, `reward_model` and `leaves` (name and hash each); `prompts`, how many were answered; `seeds` of
        the stages; `kept` and `dropped`, rows by stage (and reason); `best`, the evaluation that was the best so far.
    """
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        if match := NUMBERED.fullmatch(entry["name"]):
            found.setdefault(int(match[2]), []).append(entry)
    return [_round(number, found[number]) for number in sorted(found)]


def _round(number: int, entries: Sequence[Entry]) -> dict[str, Any]:
    run = [entry for entry in entries if entry["state"] != "skipped"]
    made: dict[str, Any] = {"round": number, "state": _state(entries), "stages": [e["name"] for e in run]}
    return {**made, **{key: value for key, value in _parts(run) if value}}


def _state(entries: Sequence[Entry]) -> str:
    """A round is skipped if all that trains or samples in it was (picking the best goes on), else as its stages."""
    states = [entry["state"] for entry in entries if entry["kind"] not in ("best", "evaluate")]
    if set(states) == {"skipped"}:
        return "skipped"
    return next((str(state) for state in states if state not in DONE), "finished")


def _parts(entries: Sequence[Entry]) -> Iterator[tuple[str, Any]]:
    answered = [entry for entry in entries if entry["kind"] in ANSWERERS]
    policies = [entry for entry in entries if entry["kind"] in MAKERS]
    scorers = [entry for entry in entries if entry["kind"] in SCORERS]
    refresh = bool(answered) and answered[0]["kind"] == "refresh"
    yield "policy", _read(answered[0], "policy" if refresh else "model") if answered else None
    yield "prompts", answered[0].get("data", {}).get("prompts" if refresh else "kept") if answered else None
    yield "reward_model", _left(scorers[-1]) if scorers else None
    yield "leaves", _left(policies[-1]) if policies else None
    yield "seeds", {entry["name"]: entry["seed"] for entry in entries if "seed" in entry}
    yield "kept", {e["name"]: e["data"]["kept"] for e in entries if "kept" in e.get("data", {})}
    yield "dropped", {e["name"]: dict(e["data"]["dropped"]) for e in entries if e.get("data", {}).get("dropped")}
    yield "best", next((_chosen(entry) for entry in entries if entry["kind"] == "best" and entry.get("metrics")), None)


def _read(entry: Entry, key: str) -> dict[str, Any]:
    return {"name": entry.get("inputs", {}).get(key), "hash": entry.get("input_hashes", {}).get(key)}


def _left(entry: Entry) -> dict[str, Any]:
    figure = entry.get("metrics", {}).get("accuracy", {})
    told = {"name": entry["name"], "hash": entry.get("artifact_hashes", {}).get("model")}
    return {**told, "accuracy": figure.get("value"), "n": figure.get("n")} if entry["kind"] in SCORERS else told


def _chosen(entry: Entry) -> dict[str, Any]:
    (metric, figure), *_ = entry["metrics"].items()
    return {"name": str(entry["inputs"].get("best", "")).removeprefix("@"), "metric": metric, **figure}


# In words.


def rounds_told(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a round where there are several, for the run's last screen."""
    return [] if len(rounds) < 2 else [f"round {made['round']}: {'; '.join(_told(made))}" for made in rounds]


def _told(made: Mapping[str, Any]) -> Iterator[str]:
    if made["state"] == "skipped":
        yield "skipped"
        return
    if "policy" in made:
        yield f"{made.get('prompts') or 'no'} prompts to {made['policy']['name']}"
    dropped = {name: sum(reasons.values()) for name, reasons in made.get("dropped", {}).items()}
    if dropped:
        yield "dropped " + ", ".join(f"{count} in {name}" for name, count in dropped.items())
    if (scorer := made.get("reward_model")) and scorer["accuracy"] is not None:
        yield f"{scorer['name']} right in {brief(scorer['accuracy'])} (n={scorer['n']})"
    if best := made.get("best"):
        yield f"best so far {best['name']}, {best['metric']} {brief(best['value'])}"
