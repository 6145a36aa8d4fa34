"""Which curves a training stage shows, by its method, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from strop.report.records import Points


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot's title, the unit of its values, and the metrics in it (patterns), but for some of them."""

    title: str
    unit: str
    metrics: tuple[str, ...]
    but: tuple[str, ...] = ()

    def shows(self, name: str) -> bool:
        """Whether a metric stands in this plot."""
        return _any(name, self.metrics) and not _any(name, self.but)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


_LOSS = Plot("Loss", "", ("loss", "eval_loss", "eval/loss"))
_STEPPING = (
    Plot("Gradient norm", "before clipping", ("grad_norm",)),
    Plot("Learning rate", "", ("learning_rate",)),
)
_REWARD = Plot("Reward", "mean of the step's completions", ("reward",))
_PARTS = Plot("Reward parts", "mean", ("rewards/*/mean",))
_HELD_OUT = Plot("Held-out answers", "greedy, mean of each reward", ("eval/*",), ("eval/completions/*",))
_LENGTH = Plot("Completion length", "tokens, mean", ("completions/mean_length", "eval/completions/mean_length"))
_LOGPS = Plot("Log-probabilities", "nats a completion", ("logps/chosen", "logps/rejected"))
_ACCURACY = Plot("Accuracy", "share of comparisons", ("accuracy", "eval_accuracy", "old/accuracy"))
_STEPS = Plot("Steps", "a solution, mean", ("steps/number",))

_OWN: Mapping[str, tuple[Plot, ...]] = {
    "sft": (
        _LOSS,
        Plot("Token accuracy", "share of trained tokens", ("mean_token_accuracy", "eval*mean_token_accuracy")),
        *_STEPPING,
    ),
    "preference": (
        Plot("Reward margin", "chosen − rejected", ("rewards/margins", "eval*rewards/margins")),
        Plot("Preference accuracy", "share of pairs", ("rewards/accuracies", "eval*rewards/accuracies")),
        _LOGPS,
        Plot("Implicit rewards", "", ("rewards/chosen", "rewards/rejected")),
        _LOSS,
        Plot("KL to the reference", "nats", ("kl", "approx_kl", "objective/kl")),
        *_STEPPING,
    ),
    "unpaired": (
        Plot("Reward margin", "desirable − undesirable", ("rewards/margins", "eval*rewards/margins")),
        Plot("Implicit rewards", "of desirable and undesirable answers", ("rewards/chosen", "rewards/rejected")),
        _LOGPS,
        Plot("KL to the reference", "nats, the point of comparison", ("kl", "eval_kl")),
        _LOSS,
        *_STEPPING,
    ),
    "process": (
        Plot("First error found", "share of held-out solutions", ("eval_first_error_accuracy",)),
        Plot("Step accuracy", "share of steps", ("accuracy", "eval_accuracy", "eval_share_right")),
        Plot("F1", "of held-out steps; the rarer class is the one to watch", ("eval_f1/*",)),
        Plot("Recall and precision", "of wrong steps", ("recall/wrong", "precision/wrong")),
        Plot("AUROC", "right steps above wrong ones", ("eval_auroc",)),
        Plot("Calibration error", "expected, held out", ("eval_ece",)),
        Plot("Implicit rewards", "", ("rewards/chosen", "rewards/rejected")),
        _LOSS,
        *_STEPPING,
    ),
    "reward": (
        _ACCURACY,
        Plot("Margin", "score, better − worse", ("margin", "eval_margin")),
        Plot("Scores", "", ("max_reward", "mean_reward", "min_reward")),
        _LOSS,
        Plot("Ties", "share of comparisons", ("tie_rate", "eval_tie_rate")),
        *_STEPPING,
    ),
    "rl": (
        _REWARD,
        _PARTS,
        _HELD_OUT,
        Plot("Process score", "mean of the steps", ("steps/score",)),
        Plot("KL to the reference", "nats", ("kl", "approx_kl", "objective/kl")),
        Plot("Entropy", "nats a token", ("entropy",)),
        Plot("Clipped share", "of tokens", ("clip_ratio*",)),
        _LENGTH,
        Plot("Cut by the length limit", "share", ("completions/clipped_ratio", "eval/completions/clipped_ratio")),
        Plot("Groups without signal", "share whose rewards are all equal", ("frac_reward_zero_std",)),
        _STEPS,
        _LOSS,
        *_STEPPING,
    ),
    "ppo": (
        _REWARD,
        _PARTS,
        _HELD_OUT,
        Plot("KL to the reference", "nats a completion", ("objective/kl",)),
        Plot("Reward as trained on", "score, and score less the KL", ("objective/scores", "objective/rlhf_reward")),
        Plot("Weight of the KL", "reward a nat", ("kl_coef",)),
        Plot("Explained variance", "of the returns, by the critic", ("val/explained_variance",)),
        Plot("Value loss", "", ("loss/value_avg",)),
        Plot("Entropy", "nats a token", ("policy/entropy_avg",)),
        Plot("Clipped share", "of tokens", ("policy/clipfrac_avg", "val/clipfrac_avg")),
        Plot("KL within a step", "nats a token", ("policy/approxkl_avg",)),
        _LENGTH,
        Plot("Loss", "", ("loss", "critic/loss")),
        Plot("Gradient norm", "before clipping", ("grad_norm", "critic/grad_norm")),
        Plot("Learning rate", "", ("learning_rate", "critic/learning_rate")),
    ),
    "online": (
        Plot("Score", "mean of the step's completions", ("objective/scores",)),
        Plot("Score margin", "best − worst of each pair", ("objective/scores_margin",)),
        _PARTS,
        _HELD_OUT,
        Plot("KL to the reference", "nats a completion", ("objective/kl",)),
        Plot("Preference accuracy", "share of pairs the policy itself ranks so", ("rewards/accuracies",)),
        _LOGPS,
        _LENGTH,
        Plot("Prompts without a pair", "number a step", ("pairs/tied", "pairs/unscored")),
        _LOSS,
        *_STEPPING,
    ),
    "sample": (
        _LENGTH,
        Plot("Cut by the length limit", "share", ("completions/clipped_ratio",)),
    ),
    "score": (Plot("Reward", "mean of the chunk's answers", ("reward",)), _PARTS),
    "label": (
        Plot("Certainty", "mean margin of what was judged", ("label/margin",)),
        Plot("Ties and abstentions", "share of comparisons", ("label/ties", "label/abstained")),
    ),
    "steps": (Plot("Labels", "share right", ("steps/label", "steps/right", "solutions/right")), _STEPS),
    "search": (Plot("Chosen answers", "mean of the chunk", ("score/chosen", "chosen/*")),),
    "revise": (Plot("Changed", "share of the answers", ("revise/changed*",)),),
}
PLOTS: Mapping[str, tuple[Plot, ...]] = {**_OWN, "refresh": _OWN["reward"]}
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
        named = [name for pattern in plot.metrics for name in sorted(series) if fnmatchcase(name, pattern)]
        names = [name for name in dict.fromkeys(named) if plot.shows(name)]
        for start in range(0, len(names), at_once):
            yield plot, names[start : start + at_once]


def remaining(kind: str, series: Mapping[str, Points]) -> list[str]:
    """Recorded metrics that no plot of the kind shows."""
    return [
        name for name in sorted(series) if not _any(name, NOT_CURVES) and not any(p.shows(name) for p in PLOTS[kind])
    ]
