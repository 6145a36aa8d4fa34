"""Texts to be judged, made inert: what is in them is shown to the judge and can do nothing else.

Everything that could act is written visibly instead: control tokens of chat templates, characters
that do not show (zero-width, direction marks, tags), line breaks that are none in an editor, and a
passage repeated over and over. Then every line is quoted behind a bar, so that no line of the text
can look like a turn, a heading or the end of the quotation.

Left out: persuasion in plain words ("as an expert I rate this 10"). It stays readable, and it is
for both orders, the strict verdict and the agreement figures to show whether a judge falls for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

BAR = "| "
MAX_CHARS = 20_000
"""Characters of one text that a judge reads; the middle of a longer one is left out, visibly."""
MANY, LONG = 8, 80
"""A passage is shortened if it stands at least so often in a row, and fills so many characters."""
UNIT = 200
"""The longest passage whose repetition is looked for, in characters."""
GRAM = 8
"""Characters by which a passage is found again. In a text that repeats so often, one such run stands `MANY` times."""
TRIES = 4
"""Distances to the next such runs that are tried as the passage's length."""

_MARK = "[\\u0300-\\u036f\\u0483-\\u0489\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\ufe20-\\ufe2f]"
_MARKS = re.compile(f"({_MARK}{{4}}){_MARK}+")
_NAMES = (
    r"s|bos|eos|pad|unk|mask|sep|cls|sys|system|user|human|assistant|model|bot|inst|think|thinking|thought|reasoning"
    r"|analysis|final|answer|verdict|tool|tools|tool_calls?|tool_responses?|tool_results?|function|im_start|im_end"
    r"|(?:start|end|begin)_?of_?\w+|(?:unused|reserved|extra_id|special|image|audio|video|fim|file)_?\w*"
)
_CONTROL = re.compile(
    r"<[|\uff5c]|[|\uff5c]>"  # <|im_end|>, <|eot_id|>, and DeepSeek's with wide bars
    r"|<</?[A-Z_]{2,}>>"  # <<SYS>>
    rf"|(?i:</?(?:{_NAMES})\s*/?>)"  # <s>, </think>, <start_of_turn>
    r"|\[/?[A-Z][A-Z_]{2,}\]"  # [INST], [TOOL_CALLS]
)
_BLANKS = "\u115f\u1160\u3164\uffa0\u2800\u180e"
"""Letters that show as nothing."""


def inert(text: str, *, max_chars: int = MAX_CHARS, control: Iterable[str] = ()) -> str:
    """The text with everything that could act written visibly; what is harmless stays as it is.

    Args: control: further control tokens, of the judge's own tokenizer.
    """
    text = re.sub(r"\r\n?", "\n", text)
    over = len(text) - max_chars
    if over > 0:
        half = max_chars // 2
        text = f"{_shown(text[:half])}\u27e6{over} characters left out\u27e7{_shown(text[half + over :])}"
    else:
        text = _shown(text)
    text = _MARKS.sub("\\1\u27e6marks left out\u27e7", text)
    return _CONTROL.sub(_disarmed, _shortened(_without(text, control)))


def quoted(text: str, *, max_chars: int = MAX_CHARS) -> str:
    """The inert text, each line behind a bar."""
    return "\n".join(BAR + line for line in inert(text, max_chars=max_chars).split("\n"))


def fenced(title: str, text: str, nonce: str, *, max_chars: int = MAX_CHARS) -> str:
    """The quoted text between two lines that carry the question's code, which the text cannot know."""
    return f"<<< {nonce} {title}\n{quoted(text, max_chars=max_chars)}\n>>> {nonce} end of {title}"


def _shown(text: str) -> str:
    """Each character that does not show as its code point; our own two brackets too, so nobody can forge one."""
    out = []
    for char in text:
        if char in "\n\t" or (char.isascii() and char.isprintable()):
            out.append(char)
        elif _hidden(char):
            out.append(f"\u27e6U+{ord(char):04X}\u27e7")
        else:
            out.append(char)
    return "".join(out)


def _hidden(char: str) -> bool:
    kind = unicodedata.category(char)
    unseen = kind in ("Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp") or char in _BLANKS
    return unseen or char in "\u27e6\u27e7" or "\U000e0100" <= char <= "\U000e01ef"


def _shortened(text: str) -> str:
    """The text with passages that stand many times in a row written three times; linear in its length."""
    grams = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    often = {gram for gram, count in Counter(grams).items() if count >= MANY}
    if not often:
        return text
    following: dict[int, int] = {}
    last: dict[str, int] = {}
    for i in range(len(grams) - 1, -1, -1):
        if grams[i] in often:
            following[i] = last.get(grams[i], len(text))
            last[grams[i]] = i
    out, done, i = [], 0, 0
    while i < len(grams):
        length, end = _repeated(text, i, following) if i in following else (0, i)
        if length:
            times = (end - i) // length
            out += [text[done : i + 3 * length], f"\u27e6the same {times - 3} times more\u27e7"]
            done = i = end
        else:
            i += 1
    return "".join([*out, text[done:]])


def _repeated(text: str, start: int, following: Mapping[int, int]) -> tuple[int, int]:
    """The length of a passage that stands many times in a row from `start` on, and where they end; 0 for none."""
    place = start
    for _ in range(TRIES):
        place = following.get(place, len(text))
        length = place - start
        if length > UNIT or place >= len(text):
            break
        unit, end = text[start:place], place
        while text.startswith(unit, end):
            end += length
        if end - start >= max(LONG, MANY * length):
            return length, end
    return 0, start


def _without(text: str, control: Iterable[str]) -> str:
    for token in sorted((t for t in control if t.strip() and t in text), key=len, reverse=True):
        text = text.replace(token, "\u27e6control token " + " ".join(token) + "\u27e7")
    return text


def _disarmed(match: re.Match[str]) -> str:
    """A control token in look-alike brackets, which no tokenizer knows as one."""
    found = match.group()
    if found.startswith("["):
        return f"\u27e6{found[1:-1]}\u27e7"
    return found.replace("<", "\u2039").replace(">", "\u203a")
