"""LaTeX as tokens: one way to write each thing, without layout.

`\\dfrac` and `\\frac`, `\\leq` and `\\le`, `\\left(` and `(`, Unicode signs and their commands come
out alike. Spaces are dropped; a token knows whether one stood before it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from strop.rewards.quantity import plain as plain_digits

Kind = Literal["number", "command", "letter", "text", "op"]


class Unread(Exception):
    """The text is no answer that can be read; the message says why."""


class Unknown(Unread):
    """A command or an environment that this reader does not know, and math-verify may."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of LaTeX. kind "text" is words, from `\\text{...}` or written out."""

    kind: Kind
    text: str
    spaced: bool = False


_SIGNS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "∗": "*", "⁄": "/", "∕": "/",
    "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "°": r"\degree ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "≈": r"\approx ", "ℝ": r"\reals ", "′": "'", "’": "'", "∖": r"\setminus ", "％": "%",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "ρ": r"\rho ", "Δ": r"\Delta ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "（": "(", "）": ")", "，": ",", "＝": "=", "＋": "+", "－": "-",
    "€": r"\euro ", "£": r"\pounds ", "¥": r"\yen ", "\u00a0": " ", "\u2009": r"\,", "\u202f": r"\,",
}  # fmt: skip
_SUPERSCRIPT = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_LAYOUT = re.compile(
    r"\\(?:left|right)\s?\.|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|strut)"
    r"(?![a-zA-Z])|\\(?:begin|end)\{(?:equation|align|aligned|gather)\*?\}"
)
_DIGIT_GAP = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,|\\;|\\:|\\ )(?=[0-9]{3}(?![0-9]))")
_SPACE = re.compile(r"\\[,;:! ]|\\(?:quad|qquad|thinspace|enspace|space|hfill)(?![a-zA-Z])|\\[hv]space\*?\{[^{}]*\}|~")
_TEXT = (
    "text|textbf|textit|textrm|textnormal|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathtt|bm|boldsymbol|mbox"
    "|operatorname|hbox"
)
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    | (?P<environment>\\(?:begin|end)\s*\{{[a-zA-Z]+\*?\}})
    | \\(?P<wrapper>{_TEXT})\s*\*?\s*\{{
    | (?P<command>\\[a-zA-Z]+|\\[^a-zA-Z\s])
    | (?P<number>(?:[0-9]+(?:\.[0-9]+|\.(?=\s*\\(?:overline|bar)\b))?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}}(?![0-9.]))?)
    | (?P<word>[a-zA-Z]+)
    | (?P<op>\*\*|<=|>=|!=|==|.)""",
    re.VERBOSE | re.DOTALL,
)
_SAME = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\leq": r"\le", r"\leqslant": r"\le", r"<=": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge", r">=": r"\ge",
    r"\lt": "<", r"\gt": ">", r"\neq": r"\ne", "!=": r"\ne", "==": "=", r"\colon": ":", r"\mid": "|", r"\vert": "|",
    r"\lvert": "|", r"\rvert": "|", r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "/", "**": "^",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\lparen": "(", r"\rparen": ")",
    r"\varnothing": r"\emptyset", r"\O": r"\emptyset", r"\infinity": r"\infty", r"\%": "%", r"\R": r"\reals",
    r"\Reals": r"\reals", r"\bar": r"\overline", r"\backslash": r"\setminus", r"\imath": "i", r"\dots": r"\ldots",
    r"\cdots": r"\ldots", r"\Vert": r"\|", r"\asin": r"\arcsin", r"\acos": r"\arccos", r"\atan": r"\arctan",
    r"\tg": r"\tan", r"\arctg": r"\arctan", r"\varphi": r"\phi", r"\varepsilon": r"\epsilon", r"\lor": r"\vee",
    r"\land": r"\wedge", r"\dollar": r"\$", r"\textdollar": r"\$", r"\texteuro": r"\euro", r"\to": r"\to",
}  # fmt: skip
NAMED = frozenset(
    ["sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "pi", "infty", "infinity", "theta"]
    + ["alpha", "beta", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "lambda"]
)
"""Commands that are also read without their backslash."""
_UNIT_WORDS = frozenset(
    [
        "cm",
        "mm",
        "km",
        "kg",
        "mg",
        "ml",
        "ft",
        "yd",
        "lb",
        "oz",
        "mph",
        "kph",
        "min",
        "sec",
        "hr",
        "hrs",
        "inches",
        "Hz",
        "kHz",
        "kW",
        "kJ",
        "eV",
        "Pa",
        "mol",
    ]
)
_WORDS = frozenset(
    ["or", "and", "not", "the", "yes", "odd", "one", "two", "six", "ten", "all", "any", "but", "nor", "per", "day"]
)
_OUTWARD = re.compile(r"\s*([\[\]])([^\[\]]*)([\[\]])\s*")


def tokens(text: str, *, grouped: bool = True) -> tuple[Token, ...]:
    """The tokens of a LaTeX text.

    Args: grouped: outside of brackets, 1,000 is one number.
    Raises: Unread for braces that do not match and for characters that stand for nothing.
    """
    text = _cleaned(text)
    out: list[Token] = []
    at, depth, spaced = 0, 0, False
    while at < len(text):
        whole = _GROUPED.match(text, at) if grouped and depth == 0 and not _joined(text, at) else None
        if whole is not None:
            out.append(Token("number", whole[0].replace(",", ""), spaced))
            at, spaced = whole.end(), False
            continue
        match = _TOKEN.match(text, at)
        assert match is not None
        at = match.end()
        if match["space"]:
            spaced = True
            continue
        if match["wrapper"]:
            stop = _closing(text, at)
            out += _texts(text[at:stop], match["wrapper"], spaced)
            at = stop + 1
        elif match["word"]:
            out += _letters(match["word"], spaced, bool(out) and out[-1].kind == "number")
        else:
            token = _one(match, spaced)
            depth += (token.text in ("(", "[", r"\{", r"\langle")) - (token.text in (")", "]", r"\}", r"\rangle"))
            out.append(token)
        spaced = False
    return tuple(out)


_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9,])")


def _joined(text: str, at: int) -> bool:
    """Whether what stands before makes the digits part of something longer."""
    return at > 0 and (text[at - 1].isdigit() or text[at - 1] in ".,")


def _cleaned(text: str) -> str:
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = _SUPERSCRIPT.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("−", "-") + "}", text)
        text = "".join(_SIGNS.get(c, c) for c in text)
        text = "".join(c if c.isascii() else plain_digits(c) for c in text)
    text = text.replace(r"\(", " ").replace(r"\)", " ").replace(r"\[", " ").replace(r"\]", " ")
    text = re.sub(r"(?<!\\)\$", " ", text)
    text = _LAYOUT.sub(" ", text)
    text = re.sub(r"\\mathbb\s*\{?\s*R\s*\}?|\\Bbb\s*\{?\s*R\s*\}?", r"\\reals ", text)
    text = re.sub(r"\\mathbb\s*\{?\s*([CNQZ])(?![a-zA-Z])\s*\}?", r"\\all\1 ", text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?", r"\\degree ", text)
    if (len(text) - len(text.rstrip("\\"))) % 2:  # of a last "\\ " whose space was stripped
        text = text[:-1]
    text = _DIGIT_GAP.sub("", text)
    outward = _OUTWARD.fullmatch(text)
    if outward is not None and (outward[1], outward[3]) != ("[", "]"):  # ]0,1[ is the open interval
        text = f"{'(' if outward[1] == ']' else '['}{outward[2]}{')' if outward[3] == '[' else ']'}"
    return _SPACE.sub(" ", text).strip()


def _closing(text: str, at: int) -> int:
    """The place of the brace that closes one opened before `at`."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[at:], re.DOTALL):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return at + match.start()
    raise Unread("a brace is not closed")


def _texts(content: str, wrapper: str, spaced: bool) -> list[Token]:
    """The inside of a text command: words, or mathematics in an upright face."""
    bare = re.sub(r"\\[a-zA-Z]+\s*\{|[{}]", " ", content).strip()
    if wrapper == "operatorname" and bare in NAMED:
        return [Token("command", _SAME.get("\\" + bare, "\\" + bare), spaced)]
    if not re.search(r"[a-zA-Z]", bare) or re.search(r"\\|[0-9]", content) or wrapper in ("mathbf", "bm", "boldsymbol"):
        return [Token(t.kind, t.text, spaced or t.spaced) for t in tokens(content)]
    if re.fullmatch(r"\(?[a-zA-Z]\)?\.?", bare):
        return [Token("text" if wrapper != "mathrm" else "letter", bare.strip("()."), spaced)]
    return [Token("text", " ".join(bare.split()).rstrip("."), True)]


def _letters(word: str, spaced: bool, after_number: bool) -> list[Token]:
    """A run of letters: a function's name, a word, a unit behind a number, or a product of symbols."""
    if word in NAMED:
        return [Token("command", _SAME.get("\\" + word, "\\" + word), spaced)]
    if word.casefold() in _WORDS or len(word) > 3 or (after_number and word in _UNIT_WORDS):
        return [Token("text", word, spaced)]
    return [Token("letter", c, spaced and i == 0) for i, c in enumerate(word)]


def _one(match: re.Match[str], spaced: bool) -> Token:
    if match["number"]:
        return Token("number", match["number"], spaced)
    if match["environment"]:
        return Token("command", re.sub(r"\s", "", match["environment"]), spaced)
    text = match["command"] or match["op"]
    if not text.isascii() or (len(text) == 1 and not text.isprintable()):
        raise Unread(f"the sign {text[:4]!r} is not known")
    text = _SAME.get(text, text)
    kind: Kind = "letter" if text.isalpha() else "command" if text[0] == "\\" and text[1:2].isalpha() else "op"
    return Token(kind, text, spaced)


def key(found: tuple[Token, ...]) -> tuple[str, ...]:
    """What makes two texts the same: their tokens, words in lower case, without a closing full stop."""
    texts = [t.text.casefold() if t.kind == "text" and len(t.text) > 1 else t.text for t in found]
    while texts and texts[-1] in (".", ","):
        texts.pop()
    return tuple(part for text in texts for part in text.split())
