"""Chat templates for base models, whose tokenizers have none.

`r1-zero` is the template of DeepSeek-R1-Zero in our words: one paragraph says that an assistant thinks in
`<think>` and answers in `<answer>`, and the question stands behind it (Guo et al. 2025,
arXiv:2501.12948, table 1). A tokenizer's own template is never replaced. One that is given is saved
with the model that is trained under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from strop.types import Completion, Content, Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["r1-zero"]

R1_ZERO = (
    "This is a conversation between a user and an assistant. The user asks a question and the assistant solves it. "
    "The assistant first thinks the question through step by step and then gives the user the answer. The thinking "
    "stands between <think> and </think>, the answer behind it between <answer> and </answer>: "
    "<think> the steps </think> <answer> the answer </answer>."
)


def r1_zero(turn_end: str, bos: str = "") -> str:
    """Jinja of: the paragraph (or the conversation's own system turn), then turns under `User:` and `Assistant:`."""
    opening = f"{_literal(bos)} + (messages[0]['content'] if told else {_literal(R1_ZERO)}) + {_literal(_GAP)}"
    answer = f"{_literal('Assistant:')} + {_literal(_BREAK)}"
    return (
        "{%- set told = messages[0]['role'] == 'system' -%}"
        f"{{{{- {opening} -}}}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{{{- {answer} -}}}}{{%- generation -%}}{{{{- message['content'] + {_literal(turn_end)} -}}}}"
        f"{{%- endgeneration -%}}{{{{- {_literal(_GAP)} -}}}}"
        "{%- elif message['role'] == 'user' -%}"
        f"{{{{- {_literal('User:')} + {_literal(_BREAK)} + message['content'] + {_literal(_GAP)} -}}}}"
        "{%- elif not loop.first -%}"
        "{{- raise_exception('turns of user and assistant only, after at most one system turn') -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {answer} -}}}}{{%- endif -%}}"
    )


_BREAK, _GAP = "\n", "\n\n"

TEMPLATES: Mapping[str, Callable[[str, str], str]] = MappingProxyType({"r1-zero": r1_zero})


def give_template(tokenizer: PreTrainedTokenizerBase, name: Template) -> bool:
    """Sets the chat template of a tokenizer that has none; false where it has another one, which stands.

    Raises: ValueError if the tokenizer has no EOS token, which ends turns.
    """
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no EOS token, so no answer could end; set tokenizer.eos_token")
    first = tuple(tokenizer("a")["input_ids"])[:1]
    bos = str(tokenizer.bos_token) if first == (tokenizer.bos_token_id,) else ""
    template = TEMPLATES[name](str(tokenizer.eos_token), bos)
    if tokenizer.chat_template and tokenizer.chat_template != template:
        return False
    tokenizer.chat_template = template
    return True


def conversations(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Plain prompts as a user's turn and their answers as the assistant's; conversations, and texts alone, stay."""
    return tuple(conversation(g) if isinstance(g.prompt, str) and g.prompt else g for g in groups)


def conversation(group: Group) -> Group:
    """A plain prompt as a user's turn, its answers as the assistant's."""
    assert isinstance(group.prompt, str)
    prompt = (Message("user", group.prompt),)
    return replace(group, prompt=prompt, completions=tuple(map(_answered, group.completions)), prompt_ids=None)


def _answered(completion: Completion) -> Completion:
    said: Content = completion.content
    return replace(completion, content=(Message("assistant", said),)) if isinstance(said, str) else completion


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
