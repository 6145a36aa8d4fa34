"""The commands that serve a folder, and the template that Ollama is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from strop.recipes.shipping.serving import commands, modelfile, ollama_template

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}" + CHATML
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} </s>{% else %}{{ raise_exception('no system turns') }}{% endif %}"
    "{% endfor %}"
)
STRIPS = (
    "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}{% if loop.last %}<think>{% endif %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
TALK = [("user", "What is 2+2?"), ("assistant", "It is 4."), ("user", "And 3+3?")]


def go(template: str, system: str, turns: Sequence[tuple[str, str]]) -> str:
    """What Go's text/template makes of the few constructions that we write."""
    head, body = template.split("{{ range .Messages }}")
    match = re.fullmatch(r"\{\{ if \.System \}\}(.*?)(?:\{\{ else \}\}(.*?))?\{\{ end \}\}", head, re.DOTALL)
    if match:
        head = match[1].replace("{{ .System }}", system) if system else (match[2] or "")
    inner = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}\{\{ end \}\}',
        body,
        re.DOTALL,
    )
    assert inner is not None
    parts = {"user": inner[1], "assistant": inner[2]}
    return head + "".join(parts[role].replace("{{ .Content }}", content) for role, content in turns)


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Any:
    return AutoTokenizer.from_pretrained(tiny.path("base"))


@pytest.mark.parametrize(("template", "system"), [(CHATML, True), (QWEN, True), (LLAMA2, False), (None, False)])
def test_ollama_writes_what_the_template_writes(template: str | None, system: bool, tokenizer: Any) -> None:
    template = template or tokenizer.chat_template
    found = ollama_template(tokenizer, template)
    assert found is not None
    for turns in (TALK[:1], TALK):
        messages = [{"role": role, "content": content} for role, content in turns]
        want = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert go(found, "", turns) == want
        if system:
            said = [{"role": "system", "content": "Be brief."}, *messages]
            want = tokenizer.apply_chat_template(
                said, chat_template=template, tokenize=False, add_generation_prompt=True
            )
            assert go(found, "Be brief.", turns) == want


def test_a_template_that_depends_on_more_than_the_role_is_not_guessed(tokenizer: Any) -> None:
    assert ollama_template(tokenizer, STRIPS) is None
    assert ollama_template(tokenizer, "{{ raise_exception('never') }}") is None
    assert ollama_template(tokenizer, CHATML.replace("<|im_start|>", "{{ '{{' }}")) is None


def test_modelfile() -> None:
    text = modelfile(None, "mine-f16.gguf", ['<|im_end|>"', "\n"], "T{{ .Content }}")
    assert text.splitlines() == [
        "FROM ./mine-f16.gguf",
        'TEMPLATE """T{{ .Content }}"""',
        'PARAMETER stop "<|im_end|>\\""',
    ]
    assert modelfile("Qwen/Qwen3-0.6B", None, [], None) == "FROM Qwen/Qwen3-0.6B\nADAPTER .\n"
    assert modelfile(None, None, [], None) == "FROM .\n"


def test_commands() -> None:
    whole = commands(Path("My model"), None)
    assert whole["vllm"] == ["vllm serve 'My model' --served-model-name my-model"]
    assert whole["ollama"][0] == "ollama create my-model -f 'My model'/Modelfile"
    assert whole["transformers"] == ["transformers serve", "transformers chat 'My model'"]
    (apart,) = commands(Path("mine"), "Qwen/Qwen3-0.6B", 12)["vllm"]
    lora = "--enable-lora --max-lora-rank 16 --lora-modules mine=mine"
    assert apart == f"vllm serve Qwen/Qwen3-0.6B {lora} --generation-config mine"
