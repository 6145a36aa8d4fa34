"""PPO's credit and losses against verl's frozen answers, and against a naive reference on fresh numbers."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import naive_ppo as naive

from strop.batch import Outputs, step_totals, weighted_loss
from strop.objectives import PPO, ClippedValue
from strop.token_credit import GAE, ReinforcePP, kl_shaped_rewards
from strop.train.control import AdaptiveKL, KLControl


def frozen(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((Path(__file__).parent / "ppo" / f"{name}.json").read_text())
    assert answer["package"] == "verl"
    return answer


def arrays(rows: Sequence[Sequence[float]]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.float64) for row in rows]


def flat(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([x for row in rows for x in row], dtype=dtype)


def assert_rows(got: Sequence[Any], want: Sequence[Sequence[float]], tolerance: float = 1e-9) -> None:
    assert [len(row) for row in got] == [len(row) for row in want]
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def gradient(objective: Any, outputs: Outputs, leaf: torch.Tensor, batch: Any) -> tuple[float, torch.Tensor]:
    loss = weighted_loss(
        objective(outputs, batch), batch, objective.reductions, step_totals(objective.reductions, [batch])
    )
    return float(loss.detach()), torch.autograd.grad(loss, leaf)[0]


# verl, frozen.


def test_gae() -> None:
    """verl's rows have untrained tokens in between, over which values and advantages carry on."""
    peer = frozen("gae")
    advantages, returns = GAE(**peer["settings"])(arrays(peer["inputs"]["rewards"]), arrays(peer["inputs"]["values"]))
    assert_rows(advantages, peer["advantages"])
    assert_rows(returns, peer["returns"])


def test_reinforce_pp() -> None:
    peer = frozen("reinforce_pp")
    assert_rows(ReinforcePP().tokens(arrays(peer["inputs"]["rewards"])), peer["advantages"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_policy(dtype: torch.dtype, toys) -> None:
    peer = frozen("policy")
    inputs = peer["inputs"]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    logprobs = flat(inputs["logprobs"], dtype).requires_grad_()
    columns = {name: flat(inputs[name], dtype) for name in ("old_logprobs", "advantages")}
    batch = toys.bare_batch([len(row) for row in inputs["logprobs"]], **columns)
    loss, slope = gradient(PPO(**peer["settings"]), Outputs(logprobs), logprobs, batch)
    assert loss == pytest.approx(peer["loss"], rel=tolerance)
    torch.testing.assert_close(slope, flat(peer["grad"], dtype), rtol=tolerance, atol=tolerance)
    assert (flat(peer["grad"]) == 0).any(), "no clip took part"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value(dtype: torch.dtype, toys) -> None:
    peer = frozen("value")
    inputs = peer["inputs"]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    values = flat(inputs["values"], dtype).requires_grad_()
    columns = {name: flat(inputs[name], dtype) for name in ("old_values", "returns")}
    batch = toys.bare_batch([len(row) for row in inputs["values"]], **columns)
    objective = ClippedValue(**peer["settings"], coefficient=1.0)
    outputs = Outputs(values.new_empty(0), values=values)
    loss, slope = gradient(objective, outputs, values, batch)
    assert loss == pytest.approx(peer["loss"], rel=tolerance)
    torch.testing.assert_close(slope, flat(peer["grad"], dtype), rtol=tolerance, atol=tolerance)
    clipped = objective(outputs, batch).metrics["val/clipfrac_avg"]
    assert float(clipped.double().mean()) == pytest.approx(peer["clipped"], rel=1e-5)
    assert 0 < peer["clipped"] < 1


def test_kl_control() -> None:
    peer = frozen("kl")
    control = KLControl(AdaptiveKL(**peer["settings"]))
    for kl, want in zip(peer["inputs"]["kl"], peer["coefficients"], strict=True):
        control.update(kl=kl, num_sequences=peer["inputs"]["num_sequences"])
        assert control.coefficient == pytest.approx(want, rel=1e-12)


# The naive reference, on numbers of the day.


@pytest.fixture
def random() -> np.random.Generator:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # shown when the comparison fails
    return np.random.default_rng(seed)


def drawn(random: np.random.Generator, lengths: Sequence[int]) -> list[list[float]]:
    return [random.normal(size=n).tolist() for n in lengths]


@pytest.mark.parametrize(("gamma", "lam", "lam_value"), [(1.0, 0.95, None), (0.9, 0.5, 1.0), (1.0, 0.0, 0.3)])
def test_credit_live(gamma: float, lam: float, lam_value: float | None, random: np.random.Generator) -> None:
    lengths = [7, 1, 4, 12]
    logprobs, ref, values = (drawn(random, lengths) for _ in range(3))
    scores = random.normal(size=len(lengths)).tolist()
    rewards = [
        kl_shaped_rewards(*arrays([p, r]), score, beta=0.3) for p, r, score in zip(logprobs, ref, scores, strict=True)
    ]
    expected = [naive.shaped(p, r, score, 0.3) for p, r, score in zip(logprobs, ref, scores, strict=True)]
    assert_rows(rewards, expected, 1e-12)
    advantages, returns = GAE(gamma=gamma, lam=lam, lam_value=lam_value)(rewards, arrays(values))
    raw = [naive.advantages(r, v, gamma, lam) for r, v in zip(expected, values, strict=True)]
    assert_rows(advantages, naive.whitened(raw), 1e-9)
    targets = [
        naive.advantages(r, v, gamma, lam if lam_value is None else lam_value)
        for r, v in zip(expected, values, strict=True)
    ]
    assert_rows(returns, [[a + x for a, x in zip(*pair, strict=True)] for pair in zip(targets, values, strict=True)])


def test_losses_live(random: np.random.Generator, toys) -> None:
    lengths = [5, 2, 8, 1]
    old, moved, advantages, values, old_values, returns = (drawn(random, lengths) for _ in range(6))
    logprobs = [[o + 0.6 * m for o, m in zip(*rows, strict=True)] for rows in zip(old, moved, strict=True)]
    columns = {"old_logprobs": old, "advantages": advantages, "old_values": old_values, "returns": returns}
    batch = toys.bare_batch(lengths, **{name: flat(rows) for name, rows in columns.items()})
    outputs = Outputs(flat(logprobs), values=flat(values))
    for dual in (None, 1.4):
        want = [
            naive.policy_loss(*token, 0.2, dual)
            for rows in zip(logprobs, old, advantages, strict=True)
            for token in zip(*rows, strict=True)
        ]
        torch.testing.assert_close(
            PPO(dual_clip=dual)(outputs, batch).losses[0], torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9
        )
    want = [
        0.1 * naive.value_loss(*token, 0.2)
        for rows in zip(values, old_values, returns, strict=True)
        for token in zip(*rows, strict=True)
    ]
    torch.testing.assert_close(
        ClippedValue()(outputs, batch).losses[0], torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
