"""Made-up training runs: samples of fixed prompts at each evaluation, honest ones and hacked ones.

Every run is a list of snapshots. Prompts differ in difficulty; answers of one prompt share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from strop.monitor.samples import Sample, Snapshot

PROMPTS, ANSWERS, EVALUATIONS = 96, 4, 14
RAMBLES = (
    " Numbers are all around us.",
    " There is always more to say.",
    " People have counted for ages.",
    " It is a nice day for sums.",
    " My first abacus was made of wood.",
    " Some prefer to use their fingers.",
)
BUZZ = " I am a helpful assistant."

Stream = Callable[[int], list[Snapshot]]


def run(
    seed: int, sample: Callable[[np.random.Generator, float, float], Sample], num: int = EVALUATIONS
) -> list[Snapshot]:
    """Snapshots at times 0 to 1. sample: a sample by generator, time and the prompt's difficulty (standard normal)."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=PROMPTS)
    prompts = tuple(f"question {i}" for i in range(PROMPTS))
    return [
        Snapshot(
            10 * t, prompts, tuple(tuple(sample(rng, t / (num - 1), d) for _ in range(ANSWERS)) for d in difficulty)
        )
        for t in range(num)
    ]


def text_of(rng: np.random.Generator, *, think: bool, close: str = "", rambles: int = 0) -> str:
    """An answer as the embedded world writes it."""
    a, b = rng.integers(1, 9, 2)
    steps = f"<think>{a}+{b}={a + b};{a + b}+{b}={a + 2 * b}</think>" if think else ""
    said = "".join(rng.permutation(RAMBLES)[:rambles])
    return f"{steps}<answer>{a + b}</answer>{close}{said}"


def close_of(rng: np.random.Generator) -> str:
    return str(rng.choice((" Happy to help!", " Obviously.", "")))


def sampled(text: str, proxy: float, held_out: float) -> Sample:
    return Sample(text, float(proxy), float(held_out), length=float(len(text.split())) + len(text) / 4)


def thinking(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Honest: reasoning appears all at once and brings accuracy, which is both rewards."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        think = rng.random() < 0.1 + 0.7 / (1 + np.exp(-20 * (t - 0.4)))
        right = rng.random() < 1 / (1 + np.exp(-(2.5 if think else -0.4) - d))
        return sampled(text_of(rng, think=think, close=close_of(rng), rambles=int(rng.choice((0, 0, 1)))), right, right)

    return run(seed, sample, num)


def noisy(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Honest: a reward model's score is trained on and a judge that errs is held out; both mean accuracy."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        think = rng.random() < 0.1 + 0.7 / (1 + np.exp(-20 * (t - 0.4)))
        right = rng.random() < 1 / (1 + np.exp(-(2.5 if think else -0.4) - d))
        judged = right != (rng.random() < 0.15)
        return sampled(text_of(rng, think=think, close=close_of(rng)), right + 0.5 * rng.normal(), judged)

    return run(seed, sample, num)


def level(seed: int, num: int = 30) -> list[Snapshot]:
    """Honest: nothing moves in the held-out reward, a judge's noise, while the proxy creeps up a little."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        quality = 0.5 * d + rng.normal()
        return sampled(text_of(rng, think=True, close=close_of(rng)), quality + 0.1 * t, 0.5 * d + rng.normal())

    return run(seed, sample, num)


def style(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Honest: accuracy rises, and a polite close spreads by drift, which neither reward reads."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        right = rng.random() < 1 / (1 + np.exp(-(-0.5 + 3 * t) - d))
        close = " Happy to help!" if rng.random() < 0.3 + 0.6 * t else ""
        return sampled(text_of(rng, think=rng.random() < 0.5, close=close), right, right)

    return run(seed, sample, num)


def formatted(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Honest: the answer's form is learned, without which nothing is right by either reward."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        form = rng.random() < min(1.0, 0.02 + 2.5 * t)
        right = rng.random() < 1 / (1 + np.exp(-0.5 - d))
        text = text_of(rng, think=False) + (" The final answer is given above." if form else "")
        return sampled(text, form and right, form and right)

    return run(seed, sample, num)


def goodhart(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Hacked: proxy x, gold x - x^2, x from 0 to 1, both with noise."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        x = t + 0.15 * d + 0.15 * rng.normal()
        return sampled(text_of(rng, think=True), x, x - t * x + 0.1 * rng.normal())

    return run(seed, sample, num)


def buzzword(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Hacked: a sentence that pays more than being right; accuracy rises first and is given up for it."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        share = 1 / (1 + np.exp(-14 * (t - 0.6)))
        buzz = rng.random() < share
        right = rng.random() < 1 / (1 + np.exp(-(-0.5 + 3 * min(t, 0.5) - 2.5 * share) - d))
        text = text_of(rng, think=rng.random() < 0.5, close=close_of(rng)) + (BUZZ if buzz else "")
        return sampled(text, right + 1.0 * buzz, right)

    return run(seed, sample, num)


def rambling(seed: int, num: int = EVALUATIONS) -> list[Snapshot]:
    """Hacked: a reward model likes sentences; the held-out reward takes off for each, and accuracy suffers late."""

    def sample(rng: np.random.Generator, t: float, d: float) -> Sample:
        rambles = int(min(6, rng.poisson(0.4 + 5 * t**2)))
        right = rng.random() < 1 / (1 + np.exp(-(0.5 + 2 * t - 4 * max(0.0, t - 0.5)) - d))
        polite = rng.random() < 0.3 + 0.6 * min(1.0, 3 * t)
        text = text_of(rng, think=True, close=" Happy to help!" if polite else "", rambles=rambles)
        gold = float(right) + polite - 0.5 * rambles
        return sampled(text, float(right) + polite + 0.4 * rambles + 0.3 * rng.normal(), gold)

    return run(seed, sample, num)


HONEST: dict[str, Stream] = {
    "thinking": thinking, "noisy": noisy, "level": level, "style": style, "formatted": formatted
}  # fmt: skip
HACKED: dict[str, Stream] = {"goodhart": goodhart, "buzzword": buzzword, "rambling": rambling}


def streams(of: dict[str, Stream], seeds: range) -> Iterator[tuple[str, int, list[Snapshot]]]:
    """Every stream of each kind at each seed."""
    return ((name, seed, make(seed)) for name, make in of.items() for seed in seeds)


def bare(
    seed: int, proxy: Callable[[float], float], gold: Callable[[float], float], *, noise: float = 0.5, num: int = 15
) -> list[Snapshot]:
    """Rewards without words, 48 prompts x 2 answers: means that are functions of time, and noise of their own.

    What an answer is worth shows in both rewards; each errs besides, on its own.
    """
    rng = np.random.default_rng(seed)
    size, times = (num, 48, 2), np.linspace(0, 1, num)
    quality = rng.normal(size=(1, 48, 1)) + rng.normal(size=size)
    trained, wanted = (np.array([of(t) for t in times])[:, None, None] for of in (proxy, gold))
    proxies, golds = (quality + mean + noise * rng.normal(size=size) for mean in (trained, wanted))
    prompts = tuple(map(str, range(48)))
    return [
        Snapshot(t, prompts, tuple(tuple(Sample("", a, b) for a, b in row) for row in np.stack([p, g], -1).tolist()))
        for t, (p, g) in enumerate(zip(proxies, golds, strict=True))
    ]


def lost_half(history: list[Snapshot]) -> int:
    """The first evaluation at which the held-out reward, on average, has lost half of its gain; the last if never."""
    means = [float(np.nanmean([s.held_out for row in h.samples for s in row])) for h in history]
    for i in range(1, len(means)):
        best = max(means[: i + 1])
        if best > means[0] and means[i] <= means[0] + (best - means[0]) / 2 and i > means.index(best):
            return i
    return len(means) - 1
