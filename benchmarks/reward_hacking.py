"""How often the monitor sees reward hacking, how often it cries wolf, and what each mitigation is worth.

    python benchmarks/reward_hacking.py run                      # every cell that has no result yet; about an hour
    python benchmarks/reward_hacking.py run --group honest       # hacked, honest, mitigations, models, ppo
    python benchmarks/reward_hacking.py rejudge                  # the kept samples by the detectors as they are now
    python benchmarks/reward_hacking.py report                   # REWARD_HACKING.md from reward_hacking.json

All in the embedded world, on one CPU thread: about half a minute a run. Every run starts from one policy
(the quickstart's, after DPO) and differs by its seed: the prompts' order and every sampled token. Results are
kept run by run, so that a stopped measurement goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import strop

HERE = Path(__file__).parent
RESULTS = HERE / "reward_hacking.json"
HACKS = ("boilerplate", "longest", "buzzword")
STEPS = 30
Recipe = dict[str, Any]


def custom(function: str, label: str, weight: float = 1.0) -> dict[str, Any]:
    return {"name": "custom", "function": f"strop.world.{function}", "label": label, "weight": weight}


GOLD = custom("rewards:gold", "gold", 0.0)
SAMPLING = {"temperature": 1.0, "max_completion_length": 72}


@dataclass(frozen=True)
class Cell:
    """One run: a recipe's stages, of which `last` leaves the policy that is judged."""

    group: str
    name: str
    seed: int
    stages: list[Recipe]
    last: str
    proxy: list[Recipe]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.group}/{self.name}/{self.seed}"


# Where every run starts.


def ready(work: Path) -> Path:
    """A run with the quickstart's policy after DPO, made once; test prompts for the monitor and others to judge by."""
    marker = work / "ready.txt"
    if not marker.exists():
        recipe = strop.load_recipe("quickstart")
        settings = {"runs": str(work), "threads": 1, "device": "cpu"}
        stages = [json_of(stage) for stage in recipe.stages if stage.name in ("sft", "dpo")]
        path = strop.run({"name": "ready", "model": "world:base", **settings, "stages": stages}, display="plain").path
        rows = (path / "world/test.jsonl").read_text().splitlines(keepends=True)
        (path / "world/watched.jsonl").write_text("".join(rows[:200]))
        (path / "world/judged.jsonl").write_text("".join(rows[200:400]))
        marker.write_text(str(path))
    return Path(marker.read_text())


def json_of(stage: Any) -> Recipe:
    from strop.recipes.plain import plain

    made: Recipe = plain(stage)
    return made


# What is run.


def policy_stage(base: Path, rewards: list[Recipe], steps: int = STEPS, name: str = "rl", **changes: Any) -> Recipe:
    """RLOO without a KL, as it hacks best; changes are laid over it."""
    stage = {
        "kind": "rl",
        "name": name,
        "model": str(base / "stages/dpo/model"),
        "data": str(base / "world/prompts.jsonl"),
        "rewards": [*rewards, GOLD],
        "num_generations": 8,
        "sampling": SAMPLING,
        "advantage": {"name": "leave_one_out"},
        "objective": {"name": "rloo"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"name": "constant", "warmup": 3},
        "training": {"steps": steps, "batch_size": 16, "max_length": 128, "save_every": 0},
    }
    return {**stage, **changes}


def monitor(base: Path, every: int = 2, **changes: Any) -> Recipe:
    """Held-out gold on prompts of the test split."""
    data = {"path": str(base / "world/watched.jsonl")}
    held_out = {**GOLD, "weight": 1.0}
    return {"data": data, "num_prompts": 64, "num_generations": 4, "every": every, "rewards": [held_out], **changes}


def hacked(base: Path, seeds: range) -> Iterator[Cell]:
    for seed in seeds:
        for hack in HACKS:
            proxy = [custom(f"hacks:{hack}", "proxy")]
            stage = policy_stage(base, proxy, monitor=monitor(base))
            yield Cell("hacked", hack, seed, [stage], "rl", proxy)


def honest(base: Path, seeds: range) -> Iterator[Cell]:
    """The gold is the reward: RLOO as above, and the quickstart's GRPO, whose entropy falls and answers grow."""
    right = [custom("rewards:accuracy", "accuracy"), custom("rewards:style", "style", 0.2)]
    for seed in seeds:
        proxy = [custom("rewards:gold", "proxy")]
        yield Cell("honest", "rloo", seed, [policy_stage(base, proxy, monitor=monitor(base))], "rl", proxy)
        grpo = {
            "advantage": {"name": "group_relative"},
            "objective": {"name": "grpo"},
            "optimizer": {"name": "adamw", "lr": 6e-4},
            "monitor": {**monitor(base), "rewards": [{**r, "label": f"held-out-{r['label']}"} for r in right]},
        }
        yield Cell("honest", "grpo", seed, [policy_stage(base, right, **grpo)], "rl", right)


def mitigated(base: Path, seeds: range) -> Iterator[Cell]:
    """Each hack with one thing changed; nothing changed is a hacked run, whose monitor only looks."""
    for seed in seeds:
        for hack in HACKS:
            plain = custom(f"hacks:{hack}", "proxy")
            for name, rewards, changes in mitigations(base, plain):
                stage = policy_stage(base, rewards, **changes)
                yield Cell("mitigations", f"{hack}/{name}", seed, [stage], "rl", [plain])


def mitigations(base: Path, proxy: Recipe) -> Iterator[tuple[str, list[Recipe], Recipe]]:
    def shaped(*shape: Any) -> list[Recipe]:
        inner = {k: v for k, v in proxy.items() if k not in ("label", "weight")}
        return [{"name": "shaped", "reward": inner, "shape": list(shape), "label": "proxy"}]

    yield "KL 0.5", [proxy], {"advantage": {"name": "leave_one_out", "beta": 0.5}}
    yield "rollback", [proxy], {"monitor": monitor(base, on_alarm="rollback")}
    yield "clip at 2", shaped({"name": "clip", "low": -2.0, "high": 2.0}), {}
    if not proxy["function"].endswith("longest"):
        return
    yield "KL 2", [proxy], {"advantage": {"name": "leave_one_out", "beta": 2.0}}
    yield "early stop", [proxy], {"monitor": monitor(base, early_stop=3)}
    yield "sigmoid", shaped({"name": "sigmoid", "centre": 1.0}), {}
    yield "length control", shaped("length_control"), {}
    yield "length control, words", shaped({"name": "length_control", "unit": "words"}), {}


# Reward models.


def preferences(base: Path, labelled: int, members: int) -> list[Recipe]:
    """Pairs of the policy's own answers, labelled by the gold, and reward models of them."""
    prompts = {"path": str(base / "world/prompts.jsonl"), "limit": labelled}
    start = str(base / "stages/dpo/model")
    stages: list[Recipe] = [
        {"kind": "sample", "name": "answers", "model": start, "data": prompts, "num_samples": 4, "sampling": SAMPLING},
        {"kind": "score", "name": "scored", "data": "@answers", "rewards": [{**GOLD, "weight": 1.0}]},
        {"kind": "select", "name": "pairs", "data": "@scored", "keep": "pair"},
    ]
    for member in range(members):
        stages.append(
            {
                "kind": "reward",
                "name": f"rm{member}",
                "model": start,
                "data": "@pairs",
                "normalize": "@answers",
                "head_seed": 1,
                **LEARNING,
            }
        )
    return stages


SLOWER = {"name": "adamw", "lr": 6e-4}
LEARNING: Recipe = {
    "optimizer": {"name": "adamw", "lr": 5e-4},
    "training": {"steps": 60, "batch_size": 16, "max_length": 128, "save_every": 0, "eval_fraction": 0.1},
}
MODEL_STEPS = 45
LABELLED = 200
"""Prompts whose four answers are labelled, at the start and at each refresh; about half of them make a pair."""


def by_models(base: Path, seeds: range) -> Iterator[Cell]:
    """A policy against a reward model of few pairs, with one thing changed."""
    for seed in seeds:
        made = preferences(base, LABELLED, 3)
        rm: Recipe = {"name": "model", "path": "@rm0", "label": "proxy"}
        several = {**rm, "path": ["@rm0", "@rm1", "@rm2"]}

        def cell(name: str, *stages: Recipe, last: str = "rl", made: list[Recipe] = made, seed: int = seed) -> Cell:
            return Cell("models", name, seed, [*made, *stages], last, [{"name": "model", "path": "@rm0"}])

        def run(reward: Recipe, steps: int = MODEL_STEPS, **changes: Any) -> Recipe:
            return policy_stage(base, [reward], steps, **{"optimizer": SLOWER, **changes})

        yield cell("none", run(rm))
        yield cell("KL 0.1", run(rm, advantage={"name": "leave_one_out", "beta": 0.1}))
        uncentred = {"objective": {"label_smoothing": 0.0, "center_rewards_coefficient": 0.0}}
        yield cell(
            "uncalibrated", {**made[3], "name": "raw", **uncentred}, run({**rm, "path": "@raw", "normalize": False})
        )
        yield cell("ensemble mean", run({**several, "combine": "mean"}))
        yield cell("ensemble mean - std", run({**several, "combine": "mean_minus_std", "std_weight": 1.0}))
        average = {"kind": "average", "name": "warm", "members": ["@rm0", "@rm1", "@rm2"]}
        measured = {"kind": "calibrate", "name": "warm-rm", "model": "@warm", "data": "@pairs", "normalize": "@answers"}
        yield cell("averaged models", average, measured, run({**rm, "path": "@warm-rm"}))
        bounded = {"name": "shaped", "reward": rm | {"label": None}, "shape": {"name": "sigmoid"}, "label": "proxy"}
        yield cell("sigmoid", run(bounded))
        yield cell("refreshed twice", *refreshed(base, rm), last="rl3")
        at_once = preferences(base, 3 * LABELLED, 1)
        yield cell("as many labels at once", run(rm), made=at_once)
        early = monitor(base, every=4, early_stop=2, num_prompts=32)
        yield cell("early stop", run(rm, monitor=early))


def refreshed(base: Path, rm: Recipe) -> Iterator[Recipe]:
    """The same steps in three rounds, the model taught anew between them."""
    settings = {"steps": MODEL_STEPS // 3, "optimizer": SLOWER}
    yield policy_stage(base, [rm], **settings)
    before, old = "rm0", ["@pairs"]
    for number in (2, 3):
        policy = "@rl" if number == 2 else "@rl2"
        prompts = {"path": str(base / "world/prompts.jsonl"), "limit": LABELLED}
        yield {
            "kind": "refresh",
            "name": f"rm-{number}",
            "model": f"@{before}",
            "policy": policy,
            "data": prompts,
            "old": {"path": list(old)},
            "rewards": [{**GOLD, "weight": 1.0}],
            "sampling": SAMPLING,
            **LEARNING,
        }
        before = f"rm-{number}"
        old.append(f"@{before}")
        reward = {**rm, "path": f"@{before}"}
        yield {**policy_stage(base, [reward], name=f"rl{number}", **settings), "model": policy}


def with_ppo(base: Path, seeds: range) -> Iterator[Cell]:
    """The KL of PPO: none, fixed and adaptive."""
    kinds = {
        "none": {"name": "fixed", "coefficient": 0.0},
        "fixed 0.2": {"name": "fixed", "coefficient": 0.2},
        "adaptive, target 4": {"name": "adaptive", "coefficient": 0.2, "target": 4.0, "horizon": 600},
    }
    proxy = custom("hacks:longest", "proxy")
    for seed in seeds:
        for name, kl in kinds.items():
            stage = {
                "kind": "ppo",
                "name": "rl",
                "model": str(base / "stages/dpo/model"),
                "data": str(base / "world/prompts.jsonl"),
                "rewards": [proxy, GOLD],
                "reward_clip": None,
                "sampling": SAMPLING,
                "kl": kl,
                "passes": 2,
                "minibatches": 2,
                "optimizer": {"name": "adamw", "lr": 5e-4, "eps": 1e-5},
                "critic_optimizer": {"name": "adamw", "lr": 1e-3, "eps": 1e-5},
                "schedule": {"name": "constant"},
                "training": {"steps": STEPS, "batch_size": 96, "max_length": 128, "save_every": 0},
            }
            yield Cell("ppo", f"longest/{name}", seed, [stage], "rl", [proxy])


GROUPS = {
    "hacked": (hacked, 8),
    "honest": (honest, 12),
    "mitigations": (mitigated, 3),
    "models": (by_models, 3),
    "ppo": (with_ppo, 3),
}


# Running.


def outcome(cell: Cell, base: Path, work: Path) -> dict[str, Any]:
    """Run a cell and measure the policy that it leaves, on test prompts that nothing was chosen by."""
    began = time.perf_counter()
    judged = {
        "kind": "evaluate",
        "name": "judge",
        "model": f"@{cell.last}",
        "data": str(base / "world/judged.jsonl"),
        "rewards": [{**cell.proxy[0], "label": "proxy", "weight": 1.0}, GOLD],
        "sampling": SAMPLING,
    }
    recipe = {"name": "cell", "runs": str(work / "cells"), "threads": 1, "device": "cpu", "seed": cell.seed}
    alone = cell.group in ("hacked", "honest")  # a stage that is taken over brings no alerts of its own
    recipe |= {"reuse": not alone, "stages": [*cell.stages, judged]}
    run = strop.run(recipe, display="quiet").path
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    stages = {s["name"]: s["metrics"] for s in json.loads((run / "summary.json").read_text())["stages"]}
    alerts = [e for e in events if e.get("severity") in ("warning", "alarm")]
    steps = [row for row in rows if str(row["stage"]).startswith("rl") and "rewards/gold/mean" in row]
    return {
        "group": cell.group,
        "name": cell.name,
        "seed": cell.seed,
        "curve": {key: [row[f"rewards/{key}/mean"] for row in steps] for key in ("gold",)},
        "final": {key: stages["judge"][key] for key in ("proxy", "gold")},
        "kl": divergence(run, run / "stages" / cell.last / "model", base),
        "alerts": [{k: e[k] for k in ("step", "code", "severity", "subject", "text") if k in e} for e in alerts],
        "run": run.name,
        "seconds": round(time.perf_counter() - began, 1),
    }


def divergence(run: Path, policy: Path, base: Path) -> float:
    """KL(policy || start) in nats an answer: the mean log-ratio of the judged samples."""
    import numpy as np

    from strop.data.chat import Chat
    from strop.data.encoded import EncodedGroup
    from strop.model.load import load, load_tokenizer
    from strop.train.annotate import sequence_logprobs
    from strop.types import group_from_json

    start = str(base / "stages/dpo/model")
    lines = (run / "stages/judge/samples.jsonl").read_text().splitlines()
    chat = Chat(load_tokenizer(start))
    encoded = chat.encode_many([group_from_json(json.loads(line)) for line in lines], 128)
    groups = [e for e in encoded if isinstance(e, EncodedGroup)]
    totals = []
    for path in (str(policy), start):
        model = load(path, device="cpu", precision="fp32", seed=0, say=lambda text: None)
        found = sequence_logprobs(model, groups, temperature=1.0, max_tokens=4096, device="cpu")
        totals.append([float(np.sum(row)) for group in found for row in group])
    return float(np.mean(np.subtract(*totals)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "rejudge", "report"])
    parser.add_argument("--group", action="append", choices=list(GROUPS))
    parser.add_argument("--name", help="only cells whose name contains this")
    parser.add_argument("--seeds", type=int, help="how many, in place of the group's own number")
    parser.add_argument("--work", type=Path, default=Path("runs/hacking"))
    args = parser.parse_args()
    if args.command == "run":
        measure(args.group or list(GROUPS), args.name or "", args.seeds, args.work)
    if args.command == "rejudge":
        rejudge(args.work)
    from hacking_report import write

    write(RESULTS, HERE / "REWARD_HACKING.md")


def rejudge(work: Path) -> None:
    """Ask the detectors again about the samples that monitored runs kept, for when the detectors have changed.

    What the run itself said stays beside it: a detector that was changed because of a run is no longer tested by it.
    """
    from strop.monitor.judge import Watch
    from strop.monitor.samples import snapshot
    from strop.monitor.settings import Thresholds
    from strop.types import group_from_json

    results = known_results()
    for run in results.values():
        folder = work.resolve() / "cells" / run["run"] / "stages/rl/monitor"
        if run["group"] not in ("hacked", "honest") or not folder.is_dir():  # its samples are gone
            continue
        weights = {"gold": 1.0, "held-out-accuracy": 1.0, "held-out-style": 0.2}
        watch, files = Watch(Thresholds(), 2), sorted(folder.glob("step-*.jsonl"))
        for file in files:
            groups = [group_from_json(json.loads(line)) for line in file.read_text().splitlines()]
            watch.observe(snapshot(int(file.stem.partition("-")[2]), groups, weights), last=file == files[-1])
        run["rejudged"] = [
            {key: getattr(alert, key) for key in ("step", "code", "severity", "subject", "text")}
            for alert in watch.alerts
            if alert.severity != "info"
        ]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def known_results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def measure(groups: list[str], name: str, seeds: int | None, work: Path) -> None:
    results = known_results()
    base = ready(work.resolve())
    for group in groups:
        make, number = GROUPS[group]
        for cell in make(base, range(seeds or number)):
            if cell.key in results or name not in cell.name:
                continue
            found = outcome(cell, base, work.resolve())
            results = {**known_results(), cell.key: found}  # others may have been added beside this process
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            said = results[cell.key]
            figures = " ".join(f"{name} {measure['value']:.2f}" for name, measure in said["final"].items())
            alarm = next((a["step"] for a in said["alerts"] if a["severity"] == "alarm"), None)
            print(f"{cell.key}: {figures} KL {said['kl']:.1f} alarm {alarm} {said['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
