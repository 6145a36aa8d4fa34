"""What transformers alone makes of a model's folder; run as a program, so that nothing of strop is there to help.

    python -P unaided.py QUESTIONS ANSWERS

QUESTIONS is a JSON file: `folder` (a model, or a peft adapter that names its base), `prompts` (each `text`, or
`messages` with `variables` for the template), `answers` (token ids that were given elsewhere), `num_tokens`,
`device`, `dtype`, `threads`, and `other`, a folder that should compute the same logits, or "merge" for the adapter
of `folder` folded into its base.

ANSWERS says for each prompt its ids, the greedy answer's ids, and how far the given answer's tokens fall short
of the largest logit: `short` [token], with `scale` the largest logit's size. `difference` is the largest
difference in a logit to `other`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

SHOWN = 16
"""Positions of each answer at which logits of two models are compared."""


def main(questions: str, answers: str) -> None:
    """Read the questions, ask the model, write the answers."""
    asked = json.loads(Path(questions).read_text("utf-8"))
    if asked["threads"]:
        torch.set_num_threads(asked["threads"])
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    prompts = [_prompt_ids(tokenizer, prompt) for prompt in asked["prompts"]]
    told: dict[str, Any] = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "prompts": prompts,
    }
    rows = [prompt + answer for prompt, answer in zip(prompts, asked["answers"], strict=True)]
    with torch.no_grad():
        model = _load(asked["folder"], asked)
        told["answers"] = [_greedy(model, asked, prompt) for prompt in prompts]
        told["texts"] = [tokenizer.decode(ids, skip_special_tokens=True) for ids in told["answers"]]
        told |= _shortfalls(model, prompts, asked["answers"])
        if asked.get("other"):
            told["difference"] = _difference(model, rows, asked)
    aided = [name for name in sys.modules if name.partition(".")[0] == "strop"]
    assert not aided, aided
    Path(answers).write_text(json.dumps(told), "utf-8")


def _prompt_ids(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    if "text" in prompt:
        return list(tokenizer(prompt["text"])["input_ids"])
    found = tokenizer.apply_chat_template(
        prompt["messages"], add_generation_prompt=True, tokenize=True, return_dict=False, **prompt["variables"]
    )
    return list(found)


def _load(folder: str, asked: dict[str, Any]) -> Any:
    """The model of a folder; of an adapter's, its base with the adapter beside its weights."""
    kind = getattr(torch, asked["dtype"])
    own = Path(folder) / "adapter_config.json"
    if own.is_file() and not (Path(folder) / "config.json").is_file():
        import peft

        base = json.loads(own.read_text("utf-8"))["base_model_name_or_path"]
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=kind)
        model = peft.PeftModel.from_pretrained(model, folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
    return model.to(asked["device"]).eval()


def _greedy(model: Any, asked: dict[str, Any], prompt: list[int]) -> list[int]:
    """The greedy answer, ended by whatever the folder says ends one."""
    saved = Path(asked["folder"]) / "generation_config.json"
    own = GenerationConfig.from_pretrained(asked["folder"]) if saved.is_file() else model.generation_config
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=asked["num_tokens"],
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else 0,
    )
    ids = torch.tensor([prompt], device=asked["device"])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return [int(token) for token in out[0, len(prompt) :]]


def _shortfalls(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Any]:
    short, scale = [], 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = _logits(model, prompt + answer)[len(prompt) - 1 : -1]
        given = logits.gather(-1, torch.tensor(answer).reshape(-1, 1))
        short.append((logits.max(-1).values - given.squeeze(-1)).tolist())
        scale = max(scale, float(logits.abs().max()) if len(logits) else 0.0)
    return {"short": short, "scale": scale}


def _difference(model: Any, rows: list[list[int]], asked: dict[str, Any]) -> float:
    mine = [_logits(model, row)[-SHOWN:] for row in rows]
    if asked["other"] == "merge":
        other = model.merge_and_unload(safe_merge=True)
    else:
        del model
        other = _load(asked["other"], asked)
    theirs = [_logits(other, row)[-SHOWN:] for row in rows]
    return max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))


def _logits(model: Any, row: list[int]) -> torch.Tensor:
    """[tokens, vocabulary], fp32 on the CPU."""
    ids = torch.tensor([row], device=model.device)
    found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
