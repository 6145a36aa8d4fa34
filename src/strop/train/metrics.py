"""What a run writes down as it goes: metrics.jsonl, events.jsonl, status.json; and how metrics are summed.

Each line is one JSON object, written in one call, so a kill can tear only the last line. A number
JSON cannot say (NaN, infinity) becomes null and its name stands in the line's "nonfinite" list.

Metrics reduce as (sum, count) over micro-batches and ranks, never as a mean of means.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from strop import dist
from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

METRICS, EVENTS, STATUS = "metrics.jsonl", "events.jsonl", "status.json"

Kind = Literal[
    "start",
    "resume",
    "drop",
    "skip",
    "alarm",
    "checkpoint",
    "evaluate",
    "finish",
    "error",
    "nonfinite",
    "warning",
    "note",
]
"""What an event is."""

State = Literal["running", "finished", "interrupted", "failed"]
"""How a run stands."""


class RunLog:
    """The open metrics and events of a run directory, and its status. One process writes (rank 0).

    A line torn by a kill is removed when the log is opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._metrics = _open_lines(folder / METRICS)
        self._events = _open_lines(folder / EVENTS)

    def metrics(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """One line for an optimizer step."""
        assert not {"stage", "step", "time", "nonfinite"} & set(values), values
        _append(self._metrics, _line({"stage": stage, "step": step, "time": time.time(), **values}))

    def event(
        self, kind: Kind, text: str, *, stage: str | None = None, step: int | None = None, extra: Mapping[str, Any] = {}
    ) -> None:
        """One line for something that happened; `text` is a sentence for people."""
        head = {"time": time.time(), "stage": stage, "step": step, "kind": kind, "text": text}
        _append(self._events, _line({**extra, **head}))

    def status(
        self,
        state: State,
        *,
        stage: str | None = None,
        step: int = 0,
        steps: int | None = None,
        error: str | None = None,
    ) -> None:
        """Replace status.json: where the run stands."""
        now = {"state": state, "stage": stage, "step": step, "steps": steps}
        write_json(self.folder / STATUS, {**now, "pid": os.getpid(), "updated": time.time(), "error": error})

    def rewind(self, stage: str, step: int) -> int:
        """Forget a stage's metrics at and after a step, which will be done again; how many lines went.

        Events, which happened, stay.
        """
        os.close(self._metrics)
        gone = truncate(self.folder / METRICS, stage, step)
        self._metrics = _open_lines(self.folder / METRICS)
        return gone

    def close(self) -> None:
        """Release the files."""
        os.close(self._metrics)
        os.close(self._events)


def truncate(path: Path, stage: str, step: int) -> int:
    """Drop a stage's lines at and after a step, and a torn last line; returns how many lines went.

    The file is replaced atomically; other lines stay byte for byte. A file that is not there is left so.

    Raises: ValueError if a line but the last is no JSON object.
    """
    if not path.exists():
        return 0
    rows = _rows(path)
    kept = [line for line, row in rows if not (row.get("stage") == stage and (row.get("step") or 0) >= step)]
    num_lines = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    _replace(path, b"".join(line + b"\n" for line in kept))
    return num_lines - len(kept)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line without its end that is no JSON was torn by a kill and is left out.

    Raises: ValueError naming file and line if another line is no JSON object.
    """
    return [row for _, row in _rows(path)]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically: a reader sees all of the old or all of the new; NaN and infinity as in lines."""
    _replace(path, _line(value, indent=1))


class MetricSums:
    """Means over everything a step measured: micro-batches here, ranks in `result`.

    A metric whose name ends in "/max" or begins with "max_" is the largest entry instead (of this
    rank); the smallest with "/min" and "min_".
    """

    def __init__(self) -> None:
        self._tensors: dict[str, list[tuple[Tensor, int]]] = {}
        self._numbers: dict[str, tuple[float, float]] = {}
        self._extreme: dict[str, float] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Count every entry of a tensor of any length; its sum is taken in float64 and fetched in `result`."""
        pick = extreme(name)
        if pick is not None:
            if values.numel():
                entry = float(values.max() if pick is max else values.min())
                self._extreme[name] = pick(self._extreme.get(name, entry), entry)
            return
        self._tensors.setdefault(name, []).append((values.detach().sum(dtype=torch.float64), values.numel()))

    def add_value(self, name: str, total: float, count: float = 1.0) -> None:
        """Count a sum over `count` entries."""
        old_total, old_count = self._numbers.get(name, (0.0, 0.0))
        self._numbers[name] = (old_total + total, old_count + count)

    def result(self) -> dict[str, float]:
        """Each metric's sum over its count, over all ranks, in name order; one that counted nothing is left out.

        Every rank must call this; a rank may lack a metric that others have.
        """
        for name, parts in self._tensors.items():
            totals = torch.stack([total for total, _ in parts]).tolist()
            self.add_value(name, math.fsum(totals), sum(count for _, count in parts))
        self._tensors.clear()
        names = _all_names(sorted(self._numbers))
        local = [number for name in names for number in self._numbers.get(name, (0.0, 0.0))]
        summed = dist.sum_numbers(local)
        pairs = zip(names, summed[::2], summed[1::2], strict=True)
        means = {name: total / count for name, total, count in pairs if count > 0}
        return {**means, **margins(means), **self._extreme}


def margins(means: Mapping[str, float]) -> dict[str, float]:
    """rewards/margins where it is not measured pair by pair: the difference of both sides' means, as TRL's for KTO."""
    chosen, rejected = means.get("rewards/chosen"), means.get("rewards/rejected")
    if "rewards/margins" in means or chosen is None or rejected is None:
        return {}
    return {"rewards/margins": chosen - rejected}


def extreme(name: str) -> Callable[[float, float], float] | None:
    """What picks the entry that stands for all, by the name; None for a mean."""
    if name.endswith("/max") or name.startswith("max_"):
        return max
    return min if name.endswith("/min") or name.startswith("min_") else None


def _all_names(names: list[str]) -> list[str]:
    """The names any rank has, sorted: gathered as sums of byte values, each rank writing to its own place."""
    if dist.world_size() == 1:
        return names
    text = json.dumps(names).encode()
    lengths = [0.0] * dist.world_size()
    lengths[dist.rank()] = float(len(text))
    ends = dist.sum_numbers(lengths)
    starts = [int(sum(ends[:r])) for r in range(dist.world_size() + 1)]
    place = [0.0] * starts[-1]
    place[starts[dist.rank()] : starts[dist.rank() + 1]] = [float(byte) for byte in text]
    gathered = bytes(int(byte) for byte in dist.sum_numbers(place))
    texts = [gathered[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    return sorted({name for part in texts for name in json.loads(part)})


def _line(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    names: list[str] = []
    plain = {key: _finite(entry, key, names) for key, entry in value.items()}
    if names:
        plain["nonfinite"] = names
    return (json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=indent) + "\n").encode()


def _finite(value: Any, where: str, names: list[str]) -> Any:
    """The value with non-finite numbers as None, whose places are added to the names."""
    if isinstance(value, Mapping):
        return {key: _finite(entry, f"{where}.{key}", names) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(entry, f"{where}[{i}]", names) for i, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        names.append(where)
        return None
    return value


def _rows(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Each line that is not empty, and its object; without a torn last line."""
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: no JSON ({error}); remove the line") from error
        if isinstance(row, dict):
            rows.append((line, row))
        elif line.strip():
            raise ValueError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}; remove the line")
    return rows


def _open_lines(path: Path) -> int:
    """A descriptor to append to, after a torn last line was cut; a whole one only gets its line end."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        _replace(path, b"".join(line + b"\n" for line, _ in _rows(path)))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _append(file: int, line: bytes) -> None:
    """One call for the whole line; what a full disk cut short is tried again, which raises."""
    while line:
        line = line[os.write(file, line) :]


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
