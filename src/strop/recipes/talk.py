"""Asking a model in a folder: single prompts and a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strop.recipes.preflight import require_model
from strop.recipes.settings import Sampling
from strop.types import Content, Message

Answer = Callable[[Sequence[Content], int, int], list[list[str]]]
"""(prompts, samples a prompt, step of the random stream) -> answers."""


def answerer(model_path: str, sampling: Sampling, seed: int, *, device: str = "auto") -> Answer:
    """A function that answers prompts with the model, loaded once.

    Raises: ValueError where there is no model or tokenizer.
    """
    require_model(model_path)
    from strop.data.chat import Chat
    from strop.model.load import choose_device, load, load_tokenizer
    from strop.recipes.stages.common import sampler

    place = choose_device(device)
    tokenizer = load_tokenizer(model_path)
    model = load(model_path, device=place, say=lambda text: None)
    chat = Chat(tokenizer)

    def answer(prompts: Sequence[Content], num_samples: int, step: int) -> list[list[str]]:
        draw = sampler(model, chat, sampling, seed, num_samples)
        drawn = draw([chat.encode_prompt(prompt) for prompt in prompts], step, 0)
        return [[chat.decode(one.ids) for one in samples] for samples in drawn]

    return answer


def sample_texts(
    model_path: str, prompts: Sequence[str], sampling: Sampling, seed: int, *, num_samples: int = 1
) -> list[list[str]]:
    """Answers to each prompt, asked as one user turn each."""
    turns: list[Content] = [(Message("user", prompt),) for prompt in prompts]
    return answerer(model_path, sampling, seed)(turns, num_samples, 0)


def chat_with(
    model_path: str, sampling: Sampling, seed: int, *, ask: Callable[[], str | None], say: Callable[[str], None]
) -> None:
    """A conversation until `ask` gives null; every answer sees all turns before it."""
    answer = answerer(model_path, sampling, seed)
    turns: tuple[Message, ...] = ()
    while (words := ask()) is not None:
        turns = (*turns, Message("user", words))
        text = answer([turns], 1, len(turns))[0][0]
        turns = (*turns, Message("assistant", text))
        say(text)
