"""IFEval's instruction ids: the check of each, and the arguments it takes.

The 25 types of Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models",
arXiv:2311.07911, Table 4, under the ids and argument names of the data published with the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from strop.rewards.instructions import (
    change_case,
    combination,
    detectable_content,
    detectable_format,
    keywords,
    language,
    length_constraints,
    punctuation,
    startend,
)
from strop.rewards.instructions.held import RELATIONS, Held
from strop.rewards.languages import LANGUAGES
from strop.rewards.texts import plain

Reader = Callable[[Any], Any]
"""Reads one argument. Raises: ValueError saying what it should be."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One type: `check(text, *arguments)`, with the arguments' names in order and how each is read."""

    check: Callable[..., Held]
    arguments: Mapping[str, Reader]


def holds(instruction_id: str, text: str, given: Mapping[str, Any]) -> Held:
    """Whether a text follows one instruction. A text without any letter or digit follows none.

    Args: given: the instruction's arguments; those that are null are not there.
    Raises: ValueError for an unknown id, and arguments that are missing, unknown or of the wrong kind.
    """
    instruction = INSTRUCTIONS.get(instruction_id)
    if instruction is None:
        raise ValueError("no such instruction")
    there = {key: value for key, value in given.items() if value is not None}
    if unknown := sorted(set(there) - set(instruction.arguments)):
        raise ValueError(f"takes no argument {unknown[0]!r}, only {', '.join(instruction.arguments) or 'none'}")
    arguments = []
    for key, read in instruction.arguments.items():
        if key not in there:
            raise ValueError(f"its argument {key!r} is missing")
        try:
            arguments.append(read(there[key]))
        except ValueError as error:
            raise ValueError(f"{key} must be {error}, got {there[key]!r:.60}") from None
    if not any(c.isalnum() for c in text):
        return Held(False, "the response has no words")
    return instruction.check(text, *arguments)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not plain(value).strip():
        raise ValueError("a text that is not empty")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list of texts that are not empty")
    return [_text(item) for item in value]


def _letter(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1:
        raise ValueError("one character")
    return value


def _count(value: Any) -> int:
    """A whole number; tables with empty cells hold 3 as 3.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        raise ValueError("a whole number, at least 0")
    return int(value)


def _relation(value: Any) -> str:
    if value not in RELATIONS:
        raise ValueError(f"one of {', '.join(map(repr, RELATIONS))}")
    return str(value)


def _language(value: Any) -> str:
    if value not in LANGUAGES:
        raise ValueError(f"an ISO 639-1 code out of {', '.join(sorted(LANGUAGES))}")
    return str(value)


INSTRUCTIONS: Mapping[str, Instruction] = MappingProxyType(
    {
        "keywords:existence": Instruction(keywords.existence, {"keywords": _texts}),
        "keywords:frequency": Instruction(
            keywords.frequency, {"keyword": _text, "frequency": _count, "relation": _relation}
        ),
        "keywords:forbidden_words": Instruction(keywords.forbidden_words, {"forbidden_words": _texts}),
        "keywords:letter_frequency": Instruction(
            keywords.letter_frequency, {"letter": _letter, "let_frequency": _count, "let_relation": _relation}
        ),
        "language:response_language": Instruction(language.response_language, {"language": _language}),
        "length_constraints:number_words": Instruction(
            length_constraints.number_words, {"num_words": _count, "relation": _relation}
        ),
        "length_constraints:number_sentences": Instruction(
            length_constraints.number_sentences, {"num_sentences": _count, "relation": _relation}
        ),
        "length_constraints:number_paragraphs": Instruction(
            length_constraints.number_paragraphs, {"num_paragraphs": _count}
        ),
        "length_constraints:nth_paragraph_first_word": Instruction(
            length_constraints.nth_paragraph_first_word,
            {"num_paragraphs": _count, "nth_paragraph": _count, "first_word": _text},
        ),
        "detectable_content:number_placeholders": Instruction(
            detectable_content.number_placeholders, {"num_placeholders": _count}
        ),
        "detectable_content:postscript": Instruction(detectable_content.postscript, {"postscript_marker": _text}),
        "detectable_format:number_bullet_lists": Instruction(
            detectable_format.number_bullet_lists, {"num_bullets": _count}
        ),
        "detectable_format:number_highlighted_sections": Instruction(
            detectable_format.number_highlighted_sections, {"num_highlights": _count}
        ),
        "detectable_format:multiple_sections": Instruction(
            detectable_format.multiple_sections, {"section_spliter": _text, "num_sections": _count}
        ),
        "detectable_format:title": Instruction(detectable_format.title, {}),
        "detectable_format:constrained_response": Instruction(detectable_format.constrained_response, {}),
        "detectable_format:json_format": Instruction(detectable_format.json_format, {}),
        "combination:repeat_prompt": Instruction(combination.repeat_prompt, {"prompt_to_repeat": _text}),
        "combination:two_responses": Instruction(combination.two_responses, {}),
        "startend:end_checker": Instruction(startend.end_checker, {"end_phrase": _text}),
        "startend:quotation": Instruction(startend.quotation, {}),
        "change_case:english_capital": Instruction(change_case.english_capital, {}),
        "change_case:english_lowercase": Instruction(change_case.english_lowercase, {}),
        "change_case:capital_word_frequency": Instruction(
            change_case.capital_word_frequency, {"capital_frequency": _count, "capital_relation": _relation}
        ),
        "punctuation:no_comma": Instruction(punctuation.no_comma, {}),
    }
)
