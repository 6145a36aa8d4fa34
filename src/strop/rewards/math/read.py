"""LaTeX to a tree of nodes, strictly: what is not understood to the last sign is not read.

Nothing is evaluated, so reading costs no more than the text is long. Left out, and so never
read: sums, integrals, limits, products, derivatives, ellipses, piecewise functions.
"""

from __future__ import annotations

from fractions import Fraction

from strop.rewards.math.nodes import Node, integer, number
from strop.rewards.math.tokens import Token, Unknown, Unread, tokens

MAX_DEPTH = 40
FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"]
    + ["log", "ln", "lg", "exp"]
)
_RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\in": "in"}
_OPENING = {"(": ")", "[": "]", r"\langle": r"\rangle"}
_CURRENCY = {r"\$": "dollar", r"\euro": "euro", r"\pounds": "pound", r"\yen": "yen"}
_CONSTANTS = {r"\pi": "pi", r"\infty": "oo", r"\emptyset": "empty", r"\reals": "reals"}
_CONSTANTS |= {rf"\all{letter}": letter for letter in "CNQZ"}
_GREEK = frozenset(
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "rho"]
    + ["sigma", "tau", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi"]
    + ["Omega", "ell"]
)
_ACCENTS = frozenset([r"\vec", r"\hat", r"\overline", r"\tilde", r"\overrightarrow", r"\widehat"])
_NAMES = frozenset([r"\angle", r"\triangle", r"\measuredangle"])
_FILLERS = frozenset(["approximately", "about", "exactly", "around", "roughly", "therefore", "so", "thus", "hence"])
_MATRICES = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"])
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"twelve": 12, "sixteen": 16}


def read(text: str, *, grouped: bool = True) -> Node:
    """The tree of an answer.

    Raises: Unread where any part is not understood, with why.
    """
    return read_tokens(tokens(text, grouped=grouped))


def read_tokens(found: tuple[Token, ...]) -> Node:
    """The tree of tokens; see `read`."""
    while found and found[-1].text in (".", ",") and found[-1].kind == "op":
        found = found[:-1]
    if not found:
        raise Unread("it is empty")
    reader = _Reader(found)
    node = reader.listed()
    if reader.at < len(found):
        kind = Unknown if reader.peek().startswith(r"\begin") else Unread
        raise kind(f"{reader.peek()!r} is not understood there")
    return node


class _Reader:
    """Recursive descent over tokens, one method a level of binding."""

    def __init__(self, found: tuple[Token, ...]) -> None:
        self.found = found
        self.at = 0
        self.depth = 0
        self.bars = 0

    # Tokens.

    def token(self) -> Token | None:
        return self.found[self.at] if self.at < len(self.found) else None

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.found[at].text if at < len(self.found) else ""

    def kind(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.found[at].kind if at < len(self.found) else ""

    def take(self) -> Token:
        if self.at >= len(self.found):
            raise Unread("it ends too early")
        self.at += 1
        return self.found[self.at - 1]

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise Unread(f"{text!r} is missing" + (f" before {self.peek()!r}" if self.peek() else ""))
        self.at += 1

    # Lists, relations, sets.

    def listed(self) -> Node:
        """Items up to a closing bracket or the end."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("it is nested too deeply")
        items, signs = [self.item()], set()
        while self.separator():
            sign = ""
            while self.separator():  # ", and" is one
                sign = self.take().text.casefold()
            signs.add("," if sign in (",", ";") else {r"\vee": "or", r"\wedge": "and"}.get(sign, sign))
            items.append(self.item())
        self.depth -= 1
        if len(items) == 1:
            return items[0]
        return Node("list", tuple(items), "or" if "or" in signs else "and" if signs == {"and"} else ",")

    def separator(self) -> bool:
        return self.peek() in (",", ";", r"\vee", r"\wedge") or (
            self.kind() == "text" and self.peek().casefold() in ("or", "and")
        )

    def item(self) -> Node:
        """A chain of relations, or words."""
        while self.kind() == "text" and self.peek().casefold() in _FILLERS:
            self.at += 1
        if self.peek() == r"\approx" or (self.peek() == "=" and self.at == 0):
            self.at += 1
        sides: list[Node] = [self.side()]
        signs: list[str] = []
        while self.peek() in _RELATIONS or (self.peek() == r"\approx" and not signs and sides[0].kind == "sym"):
            signs.append(_RELATIONS.get(self.take().text, "="))
            sides.append(self.side())
        return sides[0] if not signs else Node("rel", tuple(sides), " ".join(signs))

    def side(self) -> Node:
        if self.kind() == "text" and len(self.peek()) > 1:
            return self.words()
        node = self.sum()
        while self.peek() in (r"\cup", r"\setminus"):
            kind = "union" if self.take().text == r"\cup" else "minus"
            right = self.sum()
            joined = node.parts if node.kind == kind == "union" else (node,)
            node = Node(kind, (*joined, right))
        return self.with_unit(node)

    def words(self) -> Node:
        said = [self.take().text]
        while self.kind() in ("text", "letter", "number") and not self.separator():
            said.append(self.take().text)
        return Node("words", text=" ".join(said).casefold())

    def with_unit(self, node: Node) -> Node:
        """The node with the words behind it as its unit: 5 cm^2, 3 m/s, 60 km per hour."""
        said: list[str] = []
        while not self.separator():
            if not said and self.peek().casefold() in _SCALES:
                node = _scaled(node, _SCALES[self.take().text.casefold()])
            elif self.kind() == "text":
                said.append(self.take().text)
            elif said and self.peek() == "^" and self.kind(1) in ("number", "op"):
                self.at += 1
                said[-1] += "^" + self.exponent_of_unit()
            elif said and self.peek() in ("/", "*") and self.kind(1) == "text":
                said.append(self.take().text)
            elif self.peek() in _CURRENCY:
                self.at += 1
                said.append(_CURRENCY[self.found[self.at - 1].text])
            else:
                break
        return Node("unit", (node,), " ".join(said)) if said else node

    def exponent_of_unit(self) -> str:
        node = self.argument()
        value = integer(node)
        if value is None:
            raise Unread("a unit's exponent is no whole number")
        return str(value)

    # Arithmetic.

    def sum(self) -> Node:
        parts = [self.signed()]
        while self.peek() in ("+", "-", r"\pm", r"\mp"):
            sign = self.take().text
            right = self.product()
            if sign in (r"\pm", r"\mp"):
                left = parts[0] if len(parts) == 1 else Node("add", tuple(parts))
                parts = [Node("pm", (left, right), sign[1:])]
            else:
                parts.append(Node("neg", (right,)) if sign == "-" else right)
        return parts[0] if len(parts) == 1 else Node("add", tuple(parts))

    def signed(self) -> Node:
        sign = self.peek()
        if sign in ("-", "+", r"\pm", r"\mp"):
            self.at += 1
            inner = self.product()
            if sign in ("-", "+"):
                return Node("neg", (inner,)) if sign == "-" else inner
            return Node("pm", (inner,), sign[1:])
        return self.product()

    def product(self) -> Node:
        node = self.power()
        while True:
            if self.peek() == "*":
                self.at += 1
                node = _times(node, self.signed_factor())
            elif self.peek() == "/" and self.kind(1) != "text":
                self.at += 1
                node = self.divided(node)
            elif self.begins_factor():
                node = self.juxtaposed(node)
            else:
                return node

    def signed_factor(self) -> Node:
        if self.peek() == "-":
            self.at += 1
            return Node("neg", (self.power(),))
        return self.power()

    def divided(self, node: Node) -> Node:
        """A slash; `1 1/2` is one and a half."""
        under = self.signed_factor()
        if node.kind == "mixed?":
            return _mixed(node.parts[0], Node("div", (node.parts[1], under)))
        return Node("div", (node, under))

    def juxtaposed(self, node: Node) -> Node:
        """Two factors without a sign between them; two numerals are only read as in 1 1/2."""
        if self.kind() == "number":
            if node.kind == "num" and self.peek(1) == "/" and self.kind(2) == "number":
                return Node("mixed?", (node, self.power()))
            if node.kind == "const":  # \\pi 4
                return _times(node, self.power())
            raise Unread("two numbers stand side by side")
        right = self.power()
        if node.kind == "num" and right.kind == "div" and None not in map(integer, right.parts):
            return _mixed(node, right)
        return _times(node, right)

    def begins_factor(self) -> bool:
        text, kind = self.peek(), self.kind()
        if kind in ("number", "letter") or text in (*_OPENING, r"\frac", r"\sqrt", r"\binom", r"\lfloor", r"\lceil"):
            return True
        if text == "|":
            return self.bars == 0
        if text == r"\{" or kind != "command":
            return text in ("{",)
        return text[1:] in FUNCTIONS or text[1:] in _GREEK or text in _CONSTANTS or text in _ACCENTS

    def power(self) -> Node:
        node = self.postfixed(self.primary())
        if self.peek() == "^":
            self.at += 1
            node = self.postfixed(Node("pow", (node, self.argument(whole=True))))
            if self.peek() == "^":
                raise Unread("two exponents follow one another")
        return node

    def postfixed(self, node: Node) -> Node:
        while True:
            if self.peek() == "!":
                node = Node("call", (node,), "factorial")
            elif self.peek() == "%":
                node = Node("pct", (node,))
            elif self.peek() == r"\degree":
                node = Node("deg", (node,))
            elif self.peek() == "'" and node.kind == "sym":
                node = Node("sym", text=node.text + "'")
            else:
                return node
            self.at += 1

    def argument(self, *, whole: bool = False) -> Node:
        """What a command takes: braces, or one token (of a numeral one digit, unless `whole`)."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread("it is nested too deeply")
        token = self.take()
        if token.text == "{":
            node = self.sum()
            self.expect("}")
        elif whole and token.text in ("-", "+"):
            node = Node("neg", (self.primary(),)) if token.text == "-" else self.primary()
        elif token.kind == "number" and not whole and len(token.text) > 1 and token.text.isdigit():
            rest = Token("number", token.text[1:])
            self.found = (*self.found[: self.at], rest, *self.found[self.at :])
            node = number(int(token.text[0]))
        else:
            self.at -= 1
            node = self.primary()
        self.depth -= 1
        return node

    # What stands alone.

    def primary(self) -> Node:
        token = self.take()
        text = token.text
        if token.kind == "number":
            return self.numeral(text)
        if token.kind == "letter" or (token.kind == "text" and len(text) == 1):
            return self.symbol(text)
        if text in _OPENING or text == "]":
            return self.bracketed(text)
        if text == "{":
            node = self.sum()
            self.expect("}")
            return node
        if text == r"\{":
            return self.braced()
        if text in ("|", r"\lfloor", r"\lceil", r"\|"):
            return self.barred(text)
        if text in _CONSTANTS:
            return Node("const", text=_CONSTANTS[text])
        if text in _CURRENCY:
            return Node("unit", (self.power(),), _CURRENCY[text])
        return self.command(token)

    def numeral(self, text: str) -> Node:
        if len(text) > 400:
            raise Unread("a number has more than 400 digits")
        if self.peek() == r"\overline" and "." in text:
            return self.repeating(text)
        if self.peek() == "_":
            return self.based(text)
        return Node("num", text="." if "." in text else "", value=Fraction(text))

    def repeating(self, text: str) -> Node:
        """0.1\\overline{6}: the digits under the bar for ever."""
        self.at += 1
        digits = self.braced_text()
        if not digits.isdigit():
            raise Unread("only digits can repeat")
        scale = Fraction(1, 10 ** len(text.partition(".")[2]))
        tail = scale * Fraction(int(digits), 10 ** len(digits) - 1)
        return Node("num", value=Fraction(text.removesuffix(".")) + tail)

    def based(self, text: str) -> Node:
        self.at += 1
        base = self.braced_text()
        named = _BASES.get(base.casefold(), int(base) if base.isdigit() and len(base) < 3 else 0)
        if not 2 <= named <= 36 or "." in text:
            raise Unread("the index of a number is no base")
        return Node("base", text=f"{text.lstrip('0') or '0'}_{named}")

    def braced_text(self) -> str:
        """One token's text, or those in braces, joined."""
        if self.peek() != "{":
            return self.take().text
        self.at += 1
        said = ""
        while self.peek() not in ("}", ""):
            said += self.take().text
        self.expect("}")
        return said

    def symbol(self, name: str) -> Node:
        if self.peek() == "_":
            self.at += 1
            name += "_" + self.braced_text()
        if name in ("e", "i"):
            return Node("const", text=name)
        return Node("sym", text=name)

    def bracketed(self, opening: str) -> Node:
        """Round brackets around one thing are only brackets; else a tuple or an interval."""
        bars, self.bars = self.bars, 0
        node = self.listed()
        self.bars = bars
        closing = self.take().text
        if closing not in (")", "]", r"\rangle", "["):
            raise Unread(f"a bracket {opening} is not closed")
        if node.kind != "list":
            if opening == "[" and integer(node) is not None:
                raise Unread("a number stands in square brackets")
            if closing != _OPENING.get(opening) or opening == r"\langle":
                raise Unread("brackets do not match")
            return node if node.kind != "rel" else Node("tuple", (node,), "()")
        if node.text != "," or (r"\langle" in (opening, closing) and closing != _OPENING.get(opening)):
            raise Unread("the list in brackets is not understood")
        left = {"]": "(", r"\langle": "("}.get(opening, opening)
        right = {"[": ")", r"\rangle": ")"}.get(closing, closing)
        return Node("tuple", node.parts, left + right)

    def braced(self) -> Node:
        if self.peek() == r"\}":
            self.at += 1
            return Node("const", text="empty")
        self.bars += 1
        node = self.listed()
        self.bars -= 1
        if self.peek() in ("|", ":"):
            self.at += 1
            node = _condition(node, self.listed())
            self.expect(r"\}")
            return node
        self.expect(r"\}")
        return Node("set", node.parts if node.kind == "list" else (node,))

    def barred(self, opening: str) -> Node:
        if opening == r"\|":
            raise Unread("a norm is not read")
        self.bars += 1
        node = self.sum()
        self.bars -= 1
        self.expect({r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}.get(opening, "|"))
        return Node("call", (node,), {r"\lfloor": "floor", r"\lceil": "ceiling"}.get(opening, "abs"))

    def command(self, token: Token) -> Node:
        text, name = token.text, token.text[1:]
        if text == r"\frac":
            return Node("div", (self.argument(), self.argument()))
        if text == r"\binom":
            return Node("call", (self.argument(), self.argument()), "binomial")
        if text == r"\sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(name)
        if name in _GREEK:
            return self.symbol(name)
        if text in _ACCENTS:
            return Node("sym", text=f"{name} {self.braced_text()}")
        if text in _NAMES:
            return self.named(name)
        if text.startswith(r"\begin{"):
            return self.matrix(text[7:-1])
        if token.kind == "command":
            raise Unknown(f"{text[:20]} is not read")
        raise Unread(f"{text[:20]!r} is not understood there")

    def named(self, name: str) -> Node:
        said = name + " "
        while self.kind() == "letter":
            said += self.take().text
        return Node("sym", text=said)

    def root(self) -> Node:
        degree = number(2)
        if self.peek() == "[":
            self.at += 1
            degree = self.sum()
            self.expect("]")
        return Node("root", (self.argument(whole=True), degree))

    def function(self, name: str) -> Node:
        """A function and its argument, which without brackets is the product that follows."""
        base, exponent = None, None
        for _ in range(2):
            if self.peek() == "_":
                self.at += 1
                base = self.argument(whole=True)
            elif self.peek() == "^":
                self.at += 1
                exponent = self.argument(whole=True)
        if base is not None and name != "log":
            raise Unread(f"{name} has no base")
        if exponent is not None and integer(exponent) == -1:
            name, exponent = "arc" + name, None
            if name not in FUNCTIONS:
                raise Unread(f"{name} is not known")
        inner = self.applied()
        node = Node("call", (inner,) if base is None else (inner, base), name)
        return node if exponent is None else Node("pow", (node, exponent))

    def applied(self) -> Node:
        if self.peek() in ("(", "[", "{"):
            return self.postfixed(self.primary())
        node = self.signed_factor()
        while self.begins_factor() and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "["):
            node = self.juxtaposed(node)
        if self.peek() == "/" and self.kind(1) == "number":  # \\sin \\pi/6
            self.at += 1
            node = Node("div", (node, self.power()))
        return node

    def matrix(self, name: str) -> Node:
        if name not in _MATRICES:
            raise Unknown(f"the environment {name} is not read")
        if name == "array":
            self.braced_text()
        rows, row = [], [self.sum()]
        ending = rf"\end{{{name}}}"
        while self.peek() != ending:
            sign = self.take().text
            if sign == "&":
                row.append(self.sum())
            elif sign == "\\\\":
                rows.append(Node("row", tuple(row)))
                row = [] if self.peek() == ending else [self.sum()]
            else:
                raise Unread("a matrix has entries that are not understood")
        self.at += 1
        rows += [Node("row", tuple(row))] if row else []
        if len({len(r.parts) for r in rows}) != 1:
            raise Unread("a matrix has rows of different length")
        return Node("matrix", tuple(rows))


def _times(left: Node, right: Node) -> Node:
    return Node("mul", (*(left.parts if left.kind == "mul" else (left,)), right))


def _mixed(whole: Node, part: Node) -> Node:
    """One and a half; an improper fraction behind a whole number is a factor."""
    over, under = map(integer, part.parts)
    value = integer(whole)
    if value is None or over is None or under is None or not 0 < over < under:
        if over is None or under is None:
            raise Unread("two numbers stand side by side")
        return Node("mul", (whole, part))
    return number(value + Fraction(over, under))


def _scaled(node: Node, power: int) -> Node:
    """2.5 million, also with a currency's sign before it."""
    if node.kind == "unit":
        return Node("unit", (_scaled(node.parts[0], power),), node.text)
    if node.kind != "num" or node.value is None:
        raise Unread("a word for a number stands behind what is no numeral")
    return number(node.value * 10**power)


def _condition(left: Node, condition: Node) -> Node:
    """The set of all x with a condition: the condition, where x is one symbol."""
    if left.kind == "rel" and left.text == "in" and left.parts[1].text == "reals":
        left = left.parts[0]
    if left.kind != "sym" or condition.kind not in ("rel", "list"):
        raise Unread("the set is not read")
    if condition.kind == "rel" and condition.text == "=":
        return Node("set", condition.parts[1:])
    return condition
