"""Which curves a training stage shows, by its method, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from strop.report.read import Points


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot's title, the unit of its values, and the metrics in it (patterns)."""

    title: str
    unit: str
    metrics: tuple[str, ...]


_LOSS = Plot("Loss", "", ("loss", "eval_loss", "eval/loss"))
_STEPPING = (
    Plot("Gradient norm", "before clipping", ("grad_norm",)),
    Plot("Learning rate", "", ("learning_rate",)),
)

PLOTS: Mapping[str, tuple[Plot, ...]] = {
    "sft": (
        _LOSS,
        Plot("Token accuracy", "share of trained tokens", ("mean_token_accuracy", "eval*mean_token_accuracy")),
        *_STEPPING,
    ),
    "preference": (
        Plot("Reward margin", "chosen − rejected", ("rewards/margins", "eval*rewards/margins")),
        Plot("Preference accuracy", "share of pairs", ("rewards/accuracies", "eval*rewards/accuracies")),
        Plot("Log-probabilities", "nats a completion", ("logps/chosen", "logps/rejected")),
        Plot("Implicit rewards", "", ("rewards/chosen", "rewards/rejected")),
        _LOSS,
        Plot("KL to the reference", "nats", ("kl", "approx_kl", "objective/kl")),
        *_STEPPING,
    ),
    "reward": (
        Plot("Accuracy", "share of comparisons", ("accuracy", "eval_accuracy")),
        Plot("Margin", "score, better − worse", ("margin", "eval_margin")),
        Plot("Scores", "", ("max_reward", "mean_reward", "min_reward")),
        _LOSS,
        Plot("Ties", "share of comparisons", ("tie_rate",)),
        *_STEPPING,
    ),
    "rl": (
        Plot("Reward", "mean of the step's completions", ("reward", "eval_reward", "eval/reward")),
        Plot("Reward parts", "mean", ("rewards/*/mean",)),
        Plot("KL to the reference", "nats", ("kl", "approx_kl", "objective/kl")),
        Plot("Entropy", "nats a token", ("entropy",)),
        Plot("Clipped share", "of tokens", ("clip_ratio*",)),
        Plot("Completion length", "tokens, mean", ("completions/mean_length",)),
        Plot("Groups without signal", "share whose rewards are all equal", ("frac_reward_zero_std",)),
        _LOSS,
        *_STEPPING,
    ),
    "ppo": (
        Plot("Reward", "mean of the step's completions", ("reward", "eval_reward", "eval/reward")),
        Plot("Reward parts", "mean", ("rewards/*/mean",)),
        Plot("KL to the reference", "nats a completion", ("objective/kl",)),
        Plot("Reward as trained on", "score, and score less the KL", ("objective/scores", "objective/rlhf_reward")),
        Plot("Weight of the KL", "reward a nat", ("kl_coef",)),
        Plot("Explained variance", "of the returns, by the critic", ("val/explained_variance",)),
        Plot("Value loss", "", ("loss/value_avg",)),
        Plot("Entropy", "nats a token", ("policy/entropy_avg",)),
        Plot("Clipped share", "of tokens", ("policy/clipfrac_avg", "val/clipfrac_avg")),
        Plot("KL within a step", "nats a token", ("policy/approxkl_avg",)),
        Plot("Completion length", "tokens, mean", ("completions/mean_length",)),
        Plot("Loss", "", ("loss", "critic/loss")),
        Plot("Gradient norm", "before clipping", ("grad_norm", "critic/grad_norm")),
        Plot("Learning rate", "", ("learning_rate", "critic/learning_rate")),
    ),
    "online": (
        Plot("Score", "mean of the step's completions", ("objective/scores", "eval_reward", "eval/reward")),
        Plot("Score margin", "best − worst of each pair", ("objective/scores_margin",)),
        Plot("Reward parts", "mean", ("rewards/*/mean",)),
        Plot("KL to the reference", "nats a completion", ("objective/kl",)),
        Plot("Preference accuracy", "share of pairs the policy itself ranks so", ("rewards/accuracies",)),
        Plot("Log-probabilities", "nats a completion", ("logps/chosen", "logps/rejected")),
        Plot("Completion length", "tokens, mean", ("completions/mean_length",)),
        Plot("Prompts without a pair", "number a step", ("pairs/tied", "pairs/unscored")),
        _LOSS,
        *_STEPPING,
    ),
    "sample": (
        Plot("Completion length", "tokens, mean", ("completions/mean_length",)),
        Plot("Cut by the length limit", "share", ("completions/clipped_ratio",)),
    ),
    "score": (
        Plot("Reward", "mean of the chunk's answers", ("reward",)),
        Plot("Reward parts", "mean", ("rewards/*/mean",)),
    ),
}
"""Plots of a stage kind; metric names are TRL's. A plot whose metrics are absent is left out."""

NOT_CURVES = ("phase/*", "tokens_per_s", "epoch", "num_tokens", "*_time", "*seconds*", "peak_memory*")
"""Recorded beside the metrics of the method; shown as speed, or nothing to look at."""


def kind_of(told: str, names: Sequence[str]) -> str:
    """The stage's kind, guessed from its metrics where nothing was told."""
    if told in PLOTS:
        return told
    if any(fnmatchcase(name, "rewards/margins") or fnmatchcase(name, "logps/*") for name in names):
        return "preference"
    return "rl" if "reward" in names or any(fnmatchcase(name, "rewards/*/mean") for name in names) else "sft"


def plots_of(kind: str, series: Mapping[str, Points], at_once: int) -> Iterator[tuple[Plot, list[str]]]:
    """The plots of a stage with the metrics each shows, at most so many at once."""
    for plot in PLOTS[kind]:
        names = [name for pattern in plot.metrics for name in sorted(series) if fnmatchcase(name, pattern)]
        names = list(dict.fromkeys(names))
        for start in range(0, len(names), at_once):
            yield plot, names[start : start + at_once]


def remaining(kind: str, series: Mapping[str, Points]) -> list[str]:
    """Recorded metrics that no plot of the kind shows."""
    shown = [pattern for plot in PLOTS[kind] for pattern in plot.metrics]
    return [name for name in sorted(series) if not any(fnmatchcase(name, p) for p in (*shown, *NOT_CURVES))]
