"""The reference of names: signatures and docstrings of the public ones, read from the source without importing it.

A package's public names are those of its `__all__`; a module's are its functions and classes without an
underscore. Read as text (`ast`), so the pages do not depend on what is installed.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.docs.contents import PAGES

SOURCE = Path(__file__).parents[2] / "src"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):[ \t]*", re.MULTILINE)
LONG = 100
"""Characters of a signature that still stands on one line."""


@dataclass(frozen=True, slots=True)
class Named:
    """A public name where it is defined; an assignment has no definition."""

    module: str
    name: str
    node: Definition | None
    note: str = ""


def pages() -> dict[str, str]:
    """Every page of the reference, by its file's name."""
    written = {f"{name}.md": page(title, modules) for name, (title, modules) in PAGES.items()}
    lines = [f"- [{name}]({name}.md): {title[0].lower() + title[1:]}" for name, (title, _) in PAGES.items()]
    head = "# Reference of names\n\nFor Python. Written by `make docs` from the docstrings; what is not listed here may"
    head += " change without notice.\nAll settings of recipes stand in [settings](../settings.md).\n\n"
    return {"README.md": head + "\n".join(lines) + "\n", **written}


def page(title: str, modules: tuple[str, ...]) -> str:
    """One page: a section for each module, an entry for each name that no section before had."""
    parts, seen = [f"# {title}\n"], set[tuple[str, str]]()
    for module in modules:
        found = [named for named in public(module) if (named.module, named.name) not in seen]
        seen.update((named.module, named.name) for named in found)
        about = prose(ast.get_docstring(tree(module)) or "")
        parts += [f"## {module}\n", about, *(entry(named) for named in found)]
    return "\n".join(part for part in parts if part)


# What is public.


def public(module: str) -> list[Named]:
    """A module's public names, in the order of `__all__` or of the file, each where it is defined."""
    listed = exported(module)
    if listed is None:
        return [Named(module, node.name, node) for node in definitions(module) if not node.name.startswith("_")]
    return [found for name in listed if not name.startswith("_") for found in defined(module, name)]


def exported(module: str) -> list[str] | None:
    """What `__all__` lists, if there is one."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return sorted(ast.literal_eval(node.value), key=str.lower)
    return None


def defined(module: str, name: str) -> Iterator[Named]:
    """Where a name is defined, through imports of this package."""
    here = [node for node in definitions(module) if node.name == name]
    there = imported(module).get(name)
    if here:
        yield Named(module, name, here[0])
    elif there:
        yield from defined(*there)
    else:
        yield Named(module, name, None, note_of(module, name))


def imported(module: str) -> dict[str, tuple[str, str]]:
    """Names that a module has from others of this package: where from, and what they are called there."""
    found = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if node.module and node.module.startswith("strop")]
    return {a.asname or a.name: (str(node.module), a.name) for node in ours for a in node.names}


def note_of(module: str, name: str) -> str:
    """The text behind an assignment, which documents it."""
    body = tree(module).body
    for node, behind in zip(body, body[1:], strict=False):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            value = behind.value if isinstance(behind, ast.Expr) else None
            return str(value.value) if isinstance(value, ast.Constant) else ""
    return ""


def definitions(module: str) -> list[Definition]:
    """Functions and classes at a module's top."""
    return [node for node in tree(module).body if isinstance(node, Definition)]


@cache
def tree(module: str) -> ast.Module:
    """A module's source, parsed."""
    path = SOURCE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


# How it is written.


def entry(named: Named) -> str:
    """A name's heading, signature, text, and of a class its methods."""
    if named.node is None:
        return f"### {named.name}\n\n{prose(named.note)}"
    shown = signature(named.node)
    parts = [f"### {named.name}\n", f"```text\n{shown}\n```\n", prose(ast.get_docstring(named.node) or "")]
    if isinstance(named.node, ast.ClassDef):
        parts += [method(node) for node in named.node.body if _is_public_method(node)]
    return "\n".join(part for part in parts if part)


def _is_public_method(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and bool(ast.get_docstring(node))


def method(node: ast.stmt) -> str:
    """A method or property: its signature and first sentence."""
    assert isinstance(node, ast.FunctionDef)
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    is_property = any(ast.unparse(mark).endswith("property") for mark in node.decorator_list)
    shown = node.name if is_property else f"{node.name}({_arguments(node.args)})"
    return f"- `{shown}`: {escaped(text)}\n"


def signature(node: Definition) -> str:
    """How a function is called, or a class is made; of a dataclass its fields."""
    if isinstance(node, ast.ClassDef):
        return _broken(f"class {node.name}", _fields(node), "")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    start = "async def " if isinstance(node, ast.AsyncFunctionDef) else ""
    return _broken(start + node.name, _split(node.args), returns)


def _fields(node: ast.ClassDef) -> list[str]:
    if not any(ast.unparse(mark).startswith("dataclass") for mark in node.decorator_list):
        made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return _split(made[0].args)[1:] if made else []
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and _is_field(item)]
    return ["*"] * (len(fields) > 0 and _keywords_only(node)) + [_field(item) for item in fields]


def _keywords_only(node: ast.ClassDef) -> bool:
    return any("kw_only=True" in ast.unparse(mark) for mark in node.decorator_list)


def _is_field(item: ast.AnnAssign) -> bool:
    return "ClassVar" not in ast.unparse(item.annotation) and not ast.unparse(item.target).startswith("_")


def _field(item: ast.AnnAssign) -> str:
    default = f" = {ast.unparse(item.value)}" if item.value else ""
    return f"{ast.unparse(item.target)}: {ast.unparse(item.annotation)}{default}"


def _arguments(arguments: ast.arguments) -> str:
    return ", ".join(part for part in _split(arguments) if part != "self")


def _split(arguments: ast.arguments) -> list[str]:
    """The arguments one by one: as Python writes them, cut at commas that are outside of brackets."""
    parts, depth, text = [""], 0, ast.unparse(arguments)
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [re.sub(r"^(\w+: [^=]+)=", r"\1 = ", part.strip()) for part in parts if part.strip()]


def _broken(name: str, parts: list[str], behind: str) -> str:
    line = f"{name}({', '.join(parts)}){behind}" if parts or not name.startswith("class") else name
    if len(line) <= LONG:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){behind}"


def prose(text: str) -> str:
    """A docstring as Markdown: paragraphs, formulas as code, sections with their entries as a list."""
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    return (
        "".join(_block(part) + "\n\n" for block in blocks for part in _parts(block)).rstrip() + "\n" if blocks else ""
    )


def _parts(block: str) -> list[str]:
    """A block cut before each section's name, and where indentation begins or ends."""
    found: list[list[str]] = []
    for line in block.split("\n"):
        begins = SECTION.match(line) or (found and _kind(line) != _kind(found[-1][-1]) and not _in_section(found[-1]))
        leaves = found and _in_section(found[-1]) and not line.startswith(" ") and not SECTION.match(line)
        if not found or begins or leaves:
            found.append([])
        found[-1].append(line)
    return ["\n".join(lines) for lines in found]


def _kind(line: str) -> bool:
    return line.startswith("    ")


def _in_section(lines: list[str]) -> bool:
    return bool(SECTION.match(lines[0]))


def _block(text: str) -> str:
    head = SECTION.match(text)
    if head:
        return _section(head[1], text[head.end() :])
    if text.startswith("    "):
        return text.replace("\t", "    ")
    return escaped(text)


def _section(title: str, text: str) -> str:
    """Args, Attributes, ...: a list where each entry has a line of its own."""
    lines = text.split("\n")
    deep = [len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()]
    if lines[0].strip() or not deep:
        return _wrapped(f"**{title}**: {escaped(' '.join(text.split()))}")
    items: list[str] = []
    for line in lines[1:]:
        if len(line) - len(line.lstrip()) == min(deep) or not items:
            items.append(line.strip())
        else:
            items[-1] += " " + line.strip()
    return f"**{title}**\n\n" + "\n".join(f"- {_coded(item)}" for item in items)


def _coded(item: str) -> str:
    """An entry `names: text`, its names as code, over several lines where it is long."""
    head, colon, text = item.partition(": ")
    entry = f"`{head}`: {escaped(text)}" if colon and re.fullmatch(r"[\w, ]+", head) else escaped(item)
    return _wrapped(entry, "  ")


def _wrapped(text: str, indent: str = "") -> str:
    lines = textwrap.wrap(text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text whose tags and stars stay text, outside of code."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*|])", r"\\\1", part) for part in parts)
