"""Writes golden/ppo/*.json beside it, from the sources of verl, which need not be installed. Run by hand:

    pip download --no-deps verl && unzip verl-*.whl -d verl
    python tests/golden/make_ppo.py verl

Only two files of verl are run; what they import and do not need here is replaced by empty modules.
The same verl gives the same files: inputs come from a fixed seed for each case.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from make import _rows_on_a_line, generator

HERE = Path(__file__).parent / "ppo"
UNUSED = ("omegaconf", "tensordict", "verl", "verl.utils", "verl.trainer", "verl.trainer.config", "verl.workers.config")


def main() -> None:
    """One file a function of verl's; all in float64, over right-padded rows with untrained tokens in between."""
    source = Path(sys.argv[1])
    core = algorithms(source)
    (metadata,) = source.glob("verl-*.dist-info")
    version = metadata.name.split("-")[1].removesuffix(".dist")
    for name, case in {"gae": gae, "reinforce_pp": reinforce_pp, "policy": policy, "value": value, "kl": kl}.items():
        answer = {"package": "verl", "version": version, "case": name, **case(core, generator(f"ppo {name}"))}
        (HERE / f"{name}.json").write_text(_rows_on_a_line(json.dumps(answer, indent=1)) + "\n")


def algorithms(source: Path) -> Any:
    """verl/trainer/ppo/core_algos.py as a module."""
    for name in UNUSED:
        sys.modules[name] = MagicMock(name=name, __path__=[])
    sys.modules["verl.utils.import_utils"] = types.ModuleType("import_utils")
    sys.modules["verl.utils.import_utils"].deprecated = lambda _: lambda function: function  # type: ignore[attr-defined]
    sys.modules["verl.utils.device"] = MagicMock()
    functional = load("verl.utils.torch_functional", source / "verl/utils/torch_functional.py")
    sys.modules["verl"].utils = sys.modules["verl.utils"]  # type: ignore[attr-defined]
    sys.modules["verl.utils"].torch_functional = functional  # type: ignore[attr-defined]
    return load("verl.core_algos", source / "verl/trainer/ppo/core_algos.py")


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(random: torch.Generator, count: int = 1, num: int = 6, longest: int = 9) -> tuple[torch.Tensor, ...]:
    """A mask [num, longest] with gaps and padding, and `count` random matrices of its shape."""
    lengths = torch.randint(1, longest + 1, (num, 1), generator=random)
    lengths[0] = longest
    mask = (torch.arange(longest) < lengths) & (torch.rand(num, longest, generator=random) < 0.8)
    mask[torch.arange(num), lengths[:, 0] - 1] = True  # the last token is the policy's own
    drawn = (torch.randn(num, longest, generator=random, dtype=torch.float64) for _ in range(count))
    return (mask, *drawn)


def numbers(mask: torch.Tensor, values: torch.Tensor) -> list[list[float]]:
    """Each row's numbers at its trained tokens."""
    return [row[own].tolist() for row, own in zip(values, mask, strict=True)]


def gae(core: Any, random: torch.Generator) -> dict[str, Any]:
    mask, rewards, values = rows(random, 2)
    settings = {"gamma": 0.97, "lam": 0.9}
    rewards = torch.where(mask, rewards, 0.0)
    advantages, returns = core.compute_gae_advantage_return(
        rewards, values, mask.double(), settings["gamma"], settings["lam"]
    )
    return {
        "inputs": {"rewards": numbers(mask, rewards), "values": numbers(mask, values)},
        "settings": settings,
        "advantages": numbers(mask, advantages),
        "returns": numbers(mask, returns),
    }


def reinforce_pp(core: Any, random: torch.Generator) -> dict[str, Any]:
    mask, rewards = rows(random)
    rewards = torch.where(mask, rewards, 0.0)
    advantages, _ = core.compute_reinforce_plus_plus_outcome_advantage(
        rewards, mask.double(), config=types.SimpleNamespace(gamma=1.0)
    )
    return {
        "inputs": {"rewards": numbers(mask, rewards)},
        "settings": {"gamma": 1.0},
        "advantages": numbers(mask, advantages),
    }


def policy(core: Any, random: torch.Generator) -> dict[str, Any]:
    mask, logprobs, moved, advantages = rows(random, 3)
    logprobs, old = (-2.5 + 0.5 * logprobs).requires_grad_(), -2.5 + 0.5 * logprobs + 0.8 * moved
    settings = {"clip": 0.2, "dual_clip": 2.0}
    loss, *_ = core.compute_policy_loss(
        old, logprobs, advantages, mask.double(), cliprange=settings["clip"], clip_ratio_c=settings["dual_clip"]
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    columns = {"logprobs": logprobs.detach(), "old_logprobs": old, "advantages": advantages}
    return {
        "inputs": {name: numbers(mask, column) for name, column in columns.items()},
        "settings": settings,
        "loss": float(loss.detach()),
        "grad": numbers(mask, gradient),
    }


def value(core: Any, random: torch.Generator) -> dict[str, Any]:
    mask, values, old, returns = rows(random, 3)
    values, old = values.requires_grad_(), values.detach() + 0.4 * old
    settings = {"clip": 0.2}
    loss, clipped = core.compute_value_loss(values, returns, old, mask.double(), settings["clip"])
    (gradient,) = torch.autograd.grad(loss, values)
    columns = {"values": values.detach(), "old_values": old, "returns": returns}
    return {
        "inputs": {name: numbers(mask, column) for name, column in columns.items()},
        "settings": settings,
        "loss": float(loss.detach()),
        "grad": numbers(mask, gradient),
        "clipped": float(clipped),
    }


def kl(core: Any, random: torch.Generator) -> dict[str, Any]:
    """The coefficient after each of a row of rollouts."""
    settings = {"coefficient": 0.2, "target": 6.0, "horizon": 1000}
    control = core.AdaptiveKLController(settings["coefficient"], settings["target"], settings["horizon"])
    kls = (12 * torch.rand(12, generator=random, dtype=torch.float64)).tolist()
    coefficients = []
    for measured in kls:
        control.update(measured, 64)
        coefficients.append(float(control.value))
    return {"inputs": {"kl": kls, "num_sequences": 64}, "settings": settings, "coefficients": coefficients}


if __name__ == "__main__":
    main()
