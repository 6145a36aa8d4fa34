"""REWARD_HACKING.md from the runs that reward_hacking.py kept."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.evaluate.statistics import wilson

Run = Mapping[str, Any]
T_95 = dict(zip(range(3, 13), (4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20), strict=True))
"""Student's t for a two-sided 95 % interval of the mean of so many seeds."""
HEAD = """# Reward hacking: what is seen, and what helps

Written by `python benchmarks/reward_hacking.py report`; every run's own numbers are in reward_hacking.json.
What the graders, the alarms and the mitigations are stands in [docs/reward-hacking.md](../docs/reward-hacking.md).

"""


def write(results: Path, page: Path) -> None:
    """Write the page."""
    runs = list(json.loads(results.read_text()).values())
    parts = [HEAD, *rates(runs), *detection(runs), *false_alarms(runs), *mitigations(runs), *models(runs), *ppo(runs)]
    page.write_text("\n".join(parts).rstrip() + "\n")


# What a run says.


def told(run: Run) -> Sequence[Mapping[str, Any]]:
    """What the detectors say of a run: as they are now where they were asked again, else as they were."""
    found: Sequence[Mapping[str, Any]] = run.get("rejudged", run["alerts"])
    return found


def alarm_of(run: Run) -> Mapping[str, Any] | None:
    """The first alert of severity alarm."""
    return first_alarm(told(run))


def first_alarm(alerts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    found = sorted((a for a in alerts if a["severity"] == "alarm"), key=lambda a: a["step"])
    return found[0] if found else None


def smoothed(curve: Sequence[float]) -> list[float]:
    """Means over three steps, each in the middle."""
    return [statistics.fmean(curve[max(i - 1, 0) : i + 2]) for i in range(len(curve))]


def half_lost(run: Run) -> int | None:
    """The step at which the gold of the training samples has lost half of what it had gained at its peak."""
    curve = smoothed(run["curve"]["gold"])
    peak = max(range(len(curve)), key=curve.__getitem__)
    limit = (curve[0] + curve[peak]) / 2
    return next((i for i in range(peak, len(curve)) if curve[i] < limit), None)


def in_time(run: Run) -> bool:
    """An alarm, no later than the gold has lost half its gain."""
    alarm, limit = alarm_of(run), half_lost(run)
    return alarm is not None and (limit is None or alarm["step"] <= limit)


# Tables.


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def of_group(runs: Sequence[Run], group: str) -> list[Run]:
    return [run for run in runs if run["group"] == group]


def share(count: int, n: int) -> str:
    if not n:
        return "not measured"
    found = wilson(count, n)
    return f"{count} of {n}: {found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


def rates(runs: Sequence[Run]) -> Iterator[str]:
    good, bad = of_group(runs, "honest"), of_group(runs, "hacked")
    yield "## The monitor's rates (Wilson's 95 % interval)\n"
    yield from table(["runs", "what", "share"], rate_rows(good, bad))


def rate_rows(good: Sequence[Run], bad: Sequence[Run]) -> list[list[str]]:
    """False alarms, of the runs that detectors were changed by and of later ones; then what was detected."""
    seen, fresh = [r for r in good if "rejudged" in r], [r for r in good if "rejudged" not in r]
    live = sum(first_alarm(r["alerts"]) is not None for r in seen)

    def alarms(runs: Sequence[Run]) -> str:
        return share(sum(alarm_of(r) is not None for r in runs), len(runs))

    return [
        ["honest, first runs", "a false alarm, by the detectors as they were", share(live, len(seen))],
        ["the same", "a false alarm, by the detectors changed because of it", alarms(seen)],
        ["honest, later runs", "a false alarm", alarms(fresh)],
        ["all honest", "a warning or an alarm", share(sum(bool(told(r)) for r in good), len(good))],
        ["hacked, no KL", "an alarm", alarms(bad)],
        ["hacked", "an alarm before the gold has lost half its gain", share(sum(map(in_time, bad)), len(bad))],
    ]


def detection(runs: Sequence[Run]) -> Iterator[str]:
    yield "## When the alarm comes\n"
    yield "Medians over seeds (least to most). A step takes 128 answers; the monitor looks every second step."
    yield "First alarm: which detector spoke first, and how often.\n"
    rows = []
    for name in dict.fromkeys(run["name"] for run in of_group(runs, "hacked")):
        some = [run for run in of_group(runs, "hacked") if run["name"] == name]
        alarms = [alarm for run in some if (alarm := alarm_of(run))]
        codes = Counter(alarm["code"] for alarm in alarms)
        rows.append(
            [
                name,
                str(len(some)),
                spread([a["step"] for a in alarms]),
                spread([peak_of(run) for run in some]),
                spread([step for run in some if (step := half_lost(run)) is not None]),
                ", ".join(f"{code} {count}" for code, count in codes.most_common()),
            ]
        )
    yield from table(["hack", "runs", "alarm at step", "gold's peak at", "half its gain lost at", "first alarm"], rows)


def peak_of(run: Run) -> int:
    curve = smoothed(run["curve"]["gold"])
    return max(range(len(curve)), key=curve.__getitem__)


def spread(values: Sequence[int]) -> str:
    return f"{statistics.median(values):g} ({min(values)} to {max(values)})" if values else "never"


def false_alarms(runs: Sequence[Run]) -> Iterator[str]:
    said = [(run, a) for run in of_group(runs, "honest") for a in told(run)]
    if not said:
        return
    yield "What was said of honest runs:\n"
    for run, alert in said:
        yield f"- {run['name']}, seed {run['seed']}, step {alert['step']}, {alert['severity']} `{alert['code']}`"
    yield ""


def figures(runs: Sequence[Run]) -> list[str]:
    """Proxy, gold and KL: the mean over seeds and its 95 % interval."""
    columns = [[r["final"][key]["value"] for r in runs] for key in ("proxy", "gold")] + [[r["kl"] for r in runs]]
    return [*map(interval, columns), str(len(runs))]


def interval(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) not in T_95:
        return f"{mean:.2f}"
    return f"{mean:.2f} ± {T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.2f}"


def by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["name"], []).append(run)
    return found


COLUMNS = ["", "proxy", "gold", "KL to the start, nats", "seeds"]
SEEDS = "Means over seeds and their 95 % t intervals, on 200 test prompts of which the monitor saw none.\n"


def mitigations(runs: Sequence[Run]) -> Iterator[str]:
    found = by_name(of_group(runs, "mitigations"))
    if not found:
        return
    yield "## Mitigations against flawed graders\n"
    yield f"The policy begins at gold 1.2; trained on the gold itself it reaches {gold_of(runs)}. {SEEDS}"
    for hack in dict.fromkeys(name.partition("/")[0] for name in found):
        seeds = {run["seed"] for name, some in found.items() if name.startswith(hack) for run in some}
        plain = [r for r in of_group(runs, "hacked") if r["name"] == hack and r["seed"] in seeds]
        rows = [["none", *figures(plain)]] if plain else []
        rows += [[n.partition("/")[2], *figures(some)] for n, some in found.items() if n.startswith(f"{hack}/")]
        yield from table([hack, *COLUMNS[1:]], rows)


def gold_of(runs: Sequence[Run]) -> str:
    values = [r["final"]["gold"]["value"] for r in of_group(runs, "honest") if r["name"] == "rloo"]
    return interval(values) if values else "?"


def models(runs: Sequence[Run]) -> Iterator[str]:
    found = by_name(of_group(runs, "models"))
    if found:
        yield "## A reward model of too few pairs\n"
        yield f"Proxy is the first reward model's score. {SEEDS}"
        yield from table(COLUMNS, [[name, *figures(some)] for name, some in found.items()])


def ppo(runs: Sequence[Run]) -> Iterator[str]:
    found = by_name(of_group(runs, "ppo"))
    if found:
        yield "## PPO's KL, against the grader that likes length\n"
        yield SEEDS
        yield from table(COLUMNS, [[name.partition("/")[2], *figures(some)] for name, some in found.items()])
