"""The child process that has reasoning-gym: it makes entries and scores answers, one request a line.

An answer is a model's text, and some of the library's scorers call `eval` or sympy's parser (which
evaluates) on it. Here `eval` in a scorer's module only reads literals, an expression is let through
to sympy only if it holds nothing but numbers, letters, known functions and operators, and the
process can write no file. What hangs is killed by the parent.

Requests: {"op": "make" | "score", "name", "config", ...}; replies: {"entries"} | {"score"} |
{"error"}: the scorer raised | {"refused"}: the request is at fault.
"""

from __future__ import annotations

import ast
import ctypes
import difflib
import json
import os
import re
import resource
import signal
import sys
from functools import lru_cache
from types import CodeType
from typing import Any

from strop.rewards.gym.entries import pack, unpack

MEMORY_BYTES = 4 * 2**30

ARITHMETIC = ("countdown", "puzzle24")
"""Generators whose answers are sums over given numbers: nothing but + - * / and brackets."""
_SUM = re.compile(r"[\d\s()+\-*/]*")
_EXPRESSION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+|[A-Za-z]+|[\s()+\-*/^,])*")
_NAMES = frozenset(
    {
        "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
        "atanh", "exp", "log", "ln", "sqrt", "pi", "abs", "Abs",
    }
)  # fmt: skip
_POWERS = re.compile(r"\*\*[^+\-,]*\*\*|\*\*\s*\(*\s*-?\d{4}")


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some scorers print
    _die_with_parent()
    import reasoning_gym  # noqa: F401  (before the limits: it takes seconds and may write caches)

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        replies.write(json.dumps(answer_request(json.loads(line))) + "\n")
        replies.flush()


def answer_request(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; never raises."""
    try:
        dataset = _dataset(request["name"], json.dumps(request["config"], sort_keys=True))
        if request["op"] == "score":
            return _score(dataset, request["name"], request["answer"], unpack(request["entry"]))
        return {"entries": [pack(_entry(dataset, i)) for i in range(request["start"], request["stop"])]}
    except Exception as error:  # a generator may raise anything
        return {"refused": f"{type(error).__name__}: {error}"[:500]}


def _entry(dataset: Any, index: int) -> dict[str, Any]:
    entry = dataset[index]
    return {key: entry[key] for key in ("question", "answer", "metadata")}


def _score(dataset: Any, name: str, answer: str, entry: dict[str, Any]) -> dict[str, Any]:
    if fault := unfit(dataset, name, answer):
        return {"score": 0.0, "fault": fault}
    try:
        return {"score": float(dataset.score_answer(answer, entry))}
    except Exception as error:  # a scorer may raise anything
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def unfit(dataset: Any, name: str, answer: str) -> str:
    """Why an answer is not let through to a scorer that evaluates it; empty where it is."""
    if name in ARITHMETIC:
        plain = _SUM.fullmatch(answer) is not None and "**" not in answer and "//" not in answer
        return "" if plain else "not a sum over numbers with + - * / and brackets"
    if not _uses(type(dataset).score_answer.__code__, ("parse_expr", "sympify", "parse_latex")):
        return ""
    unknown = [n for n in re.findall(r"[A-Za-z]+", answer) if len(n) > 1 and n not in _NAMES]
    if unknown or not _EXPRESSION.fullmatch(answer):
        return f"not an expression that is read: {unknown[0] if unknown else 'a sign that is none of its own'!r}"
    return "powers of powers, or beyond 999" if _POWERS.search(answer) else ""


@lru_cache(maxsize=64)
def _dataset(name: str, config: str) -> Any:
    """A generator with these settings, its scorer unable to evaluate. Raises: ValueError for wrong settings."""
    from reasoning_gym.factory import DATASETS, create_dataset

    names = sorted(set(DATASETS) - {"composite"})  # several paths mix generators
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise ValueError(f"no generator {name!r}; {hint}")
    cls, settings = DATASETS[name]
    known = set(settings.__dataclass_fields__)
    given = json.loads(config)
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
    _only_literals(cls)
    return create_dataset(name, **{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})


def _only_literals(cls: Any) -> None:
    """Make `eval` read literals alone in the module of a scorer that calls it."""
    scorer = cls.score_answer
    if _uses(scorer.__code__, ("eval", "exec")):
        vars(sys.modules[scorer.__module__]).update(eval=ast.literal_eval, exec=ast.literal_eval)


def _uses(code: CodeType, names: tuple[str, ...]) -> bool:
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return bool(set(names) & set(code.co_names)) or any(_uses(part, names) for part in inner)


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
