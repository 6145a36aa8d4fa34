"""How a shipped folder is served: command lines for vLLM, Ollama and transformers, and Ollama's Modelfile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SYSTEM, USER, ANSWER, AGAIN = "<<a system turn>>", "<<a question>>", "<<an answer>>", "<<another question>>"
"""What stands for turns while a template is taken apart."""
PLAIN = "{{ .Prompt }}"
"""Ollama's template of a model that goes on with texts."""


def commands(folder: Path, base: str | None, rank: int = 0) -> dict[str, list[str]]:
    """Command lines by who serves, under the folder's name.

    Args: base, rank: of an adapter that ships apart, the model it is put on, and its rank.
    """
    place, name = shlex.quote(str(folder)), served_name(folder.name)
    vllm = f"vllm serve {place} --served-model-name {name}"
    if base is not None:
        lora = f"--enable-lora --max-lora-rank {_rank(rank)} --lora-modules {name}={place}"
        vllm = f"vllm serve {shlex.quote(base)} {lora} --generation-config {place}"  # the base's stops are others
    return {
        "vllm": [vllm],
        "ollama": [f"ollama create {name} -f {place}/Modelfile", f"ollama run {name}"],
        "transformers": ["transformers serve", f"transformers chat {place}"],
    }


def served_name(name: str) -> str:
    """A folder's name as one that servers take."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"


def _rank(rank: int) -> int:
    """The least rank that vLLM allows for."""
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if allowed >= rank), rank)


def modelfile(base: str | None, gguf: str | None, stops: Sequence[str], template: str | None) -> str:
    """Ollama's Modelfile, to stand in the folder: where the weights are, the template, what ends an answer."""
    lines = [f"FROM ./{gguf}" if gguf else "FROM ."]
    if base is not None and gguf is None:
        lines = [f"FROM {base}", "ADAPTER ."]
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f'PARAMETER stop "{_quoted(stop)}"' for stop in stops if stop.strip()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def ollama_template(tokenizer: Any, template: str) -> str | None:
    """A chat template as Ollama (Go's text/template) writes one, of turns of user and assistant after a system turn.

    The template is rendered with markers for turns and cut at them; null where what stands around a turn depends on
    more than whose it is (then Ollama must be told by hand).
    """

    def render(*turns: tuple[str, str]) -> str | None:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception:  # a template is a program of the model's author and may raise anything
            return None
        return str(text)

    found = _pieces(render(("user", USER)), render(("user", USER), ("assistant", ANSWER), ("user", AGAIN)))
    if found is None:
        return None
    system = _system(render(("system", SYSTEM), ("user", USER)), found)
    bos = tokenizer.bos_token or ""
    parts = {
        key: text.removeprefix(bos) if bos and key in ("head", "before system") else text for key, text in found.items()
    }
    system = {key: text.removeprefix(bos) if bos and key == "before system" else text for key, text in system.items()}
    if any("{{" in text or '"""' in text for text in (*parts.values(), *system.values())):
        return None
    return _go(parts, system)


def _pieces(once: str | None, twice: str | None) -> dict[str, str] | None:
    """What stands before, between and behind turns; null where the two renderings are not made of the same pieces."""
    if (
        once is None
        or twice is None
        or any(once.count(USER) != 1 or twice.count(t) != 1 for t in (USER, ANSWER, AGAIN))
    ):
        return None
    first, asking = once.split(USER)
    start, rest = twice.split(USER)
    between, rest = rest.split(ANSWER)
    behind, end = rest.split(AGAIN)
    if start != first or not between.startswith(asking) or end != asking:
        return None
    size = next(
        (n for n in range(min(len(first), len(behind)), -1, -1) if first.endswith(behind[len(behind) - n :])), 0
    )
    user = behind[len(behind) - size :]
    return {
        "head": first[: len(first) - size],
        "user": user,
        "asking": asking,
        "answer": between[len(asking) :],
        "answered": behind[: len(behind) - size],
    }


def _system(text: str | None, found: Mapping[str, str]) -> dict[str, str]:
    """What stands around a system turn; empty where the template has none, or it changes what comes after."""
    if text is None or text.count(SYSTEM) != 1 or text.count(USER) != 1 or text.index(SYSTEM) > text.index(USER):
        return {}
    before, rest = text.split(SYSTEM)
    behind, asking = rest.split(USER)
    if asking != found["asking"] or not behind.endswith(found["user"]):
        return {}
    return {"before system": before, "behind system": behind[: len(behind) - len(found["user"])]}


def _go(parts: Mapping[str, str], system: Mapping[str, str]) -> str:
    head = parts["head"]
    if system:
        said = system["before system"] + "{{ .System }}" + system["behind system"]
        head = "{{ if .System }}" + said + ("{{ else }}" + head if head else "") + "{{ end }}"
    user = parts["user"] + "{{ .Content }}" + parts["asking"]
    answer = parts["answer"] + "{{ .Content }}" + parts["answered"]
    turns = '{{ if eq .Role "user" }}' + user + '{{ else if eq .Role "assistant" }}' + answer + "{{ end }}"
    return head + "{{ range .Messages }}" + turns + "{{ end }}"
