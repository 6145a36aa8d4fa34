"""PPO as one would write it by hand on transformers and torch: padded rows, `generate`, no library of methods.

    step(model, critic, reference, score, prompts, optimizers, **settings) -> dict of numbers

What one PPO step costs without strop and without TRL, whose current releases have no PPO. The maths is that
of strop's `ppo` stage with a critic of its own and one minibatch: k1 in the reward, the score at the last
token, GAE, whitening over the rollout, clipped policy and value losses as token means, one optimizer each.

Args:
    model, reference: AutoModelForCausalLM; the reference frozen. critic: AutoModelForTokenClassification, one label.
    score: completion ids -> number. prompts: token ids, a row each. optimizers: of model and critic.
    eos_token_id, pad_token_id: the pad must be no token that is sampled.
    max_new_tokens, passes, beta, gamma, lam, clip, value_clip, value_coefficient, penalty, max_grad_norm: as the
        stage's settings of the like names.
Returns: what strop logs under TRL's names, over the first pass, and the seconds of generating and training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def step(
    model: Any,
    critic: Any,
    reference: Any,
    score: Callable[[list[int]], float],
    prompts: Sequence[Sequence[int]],
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    *,
    eos_token_id: int,
    pad_token_id: int,
    max_new_tokens: int,
    passes: int = 4,
    beta: float = 0.05,
    gamma: float = 1.0,
    lam: float = 0.95,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.1,
    penalty: float = 1.0,
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One rollout and its updates; the settings' names are the stage's."""
    began = time.perf_counter()
    ids, attention, width = generated(model, prompts, max_new_tokens, eos_token_id, pad_token_id)
    sampled = time.perf_counter()
    answers = ids[:, width:]
    ended_before = (answers == eos_token_id).cumsum(1) - (answers == eos_token_id).long()
    mask = ended_before == 0  # up to and with the first end token
    attention = torch.cat([attention[:, :width], mask.long()], 1)
    with torch.no_grad():
        old, _ = logprobs_of(model, ids, attention, width)
        ref, _ = logprobs_of(reference, ids, attention, width)
        old_values = values_of(critic, ids, attention, width)
    ended = ((answers == eos_token_id) & mask).any(1)
    scores = torch.tensor([score(row[own].tolist()) for row, own in zip(answers, mask, strict=True)])
    scores = scores - penalty * (~ended).float()
    rewards = torch.where(mask, -beta * (old - ref), 0.0)
    last = mask.sum(1) - 1
    rewards[torch.arange(len(last)), last] += scores
    advantages, returns = gae(rewards, torch.where(mask, old_values, 0.0), mask, gamma, lam)
    chosen = advantages[mask]
    advantages = (advantages - chosen.mean()) * torch.rsqrt(chosen.var() + 1e-8)
    first: dict[str, float] = {}
    for _ in range(passes):
        new, entropy = logprobs_of(model, ids, attention, width)
        rho = torch.where(mask, new - old, 0.0).exp()
        policy_loss = torch.maximum(-rho * advantages, -rho.clamp(1 - clip, 1 + clip) * advantages)[mask].mean()
        update(policy_loss, model, optimizers[0], max_grad_norm)
        values = values_of(critic, ids, attention, width)
        bounded = torch.minimum(torch.maximum(values, old_values - value_clip), old_values + value_clip)
        errors = torch.maximum((values - returns) ** 2, (bounded - returns) ** 2)
        value_loss = errors[mask].mean() / 2
        update(value_coefficient * value_loss, critic, optimizers[1], max_grad_norm)
        first = first or {
            "loss/policy_avg": float(policy_loss.detach()),
            "loss/value_avg": float(value_loss.detach()),
            "policy/entropy_avg": float(entropy[mask].mean()),
            "val/ratio": float(rho.detach()[mask].mean()),
        }
    kl = torch.where(mask, old - ref, 0.0).sum(1).mean()
    return {
        **first,
        "objective/kl": float(kl),
        "objective/scores": float(scores.mean()),
        "num_tokens": float(attention.sum()),
        "rollout_s": sampled - began,
        "training_s": time.perf_counter() - sampled,
    }


def generated(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, eos_token_id: int, pad_token_id: int
) -> tuple[Tensor, Tensor, int]:
    """Left-padded prompts with their completions [B, T], the attention mask of the prompts, and where answers begin."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (width - len(p)) + list(p) for p in prompts])
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    model.eval()
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=attention, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=max_new_tokens, eos_token_id=eos_token_id, pad_token_id=pad_token_id,
        )  # fmt: skip
    return out, attention, width


def logprobs_of(model: Any, ids: Tensor, attention: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Log-probs of the answers' tokens, and the entropy there, [B, C]."""
    logits = model(**inputs(ids, attention)).logits[:, width - 1 : -1].float().log_softmax(-1)
    entropy = -(logits.detach().exp() * logits.detach()).sum(-1)
    return logits.gather(-1, ids[:, width:, None]).squeeze(-1), entropy


def values_of(critic: Any, ids: Tensor, attention: Tensor, width: int) -> Tensor:
    """What the critic says before each of the answers' tokens, [B, C]."""
    values: Tensor = critic(**inputs(ids, attention)).logits[:, width - 1 : -1, 0].float()
    return values


def inputs(ids: Tensor, attention: Tensor) -> dict[str, Any]:
    """A forward's arguments, with the positions that left padding asks for."""
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "use_cache": False}


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, [B, C], 0 behind the end."""
    ahead = following = torch.zeros(len(rewards))
    rows = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        ahead = torch.where(mask[:, t], delta + gamma * lam * ahead, 0.0)
        following = values[:, t]
        rows.append(ahead)
    advantages = torch.stack(rows[::-1], 1)
    return advantages, advantages + values


def update(loss: Tensor, module: Any, optimizer: torch.optim.Optimizer, max_grad_norm: float) -> None:
    """One optimizer step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), max_grad_norm)
    optimizer.step()
