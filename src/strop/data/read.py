"""Rows of a data file with the file and line of each, and every line that is no row, with why.

Reads .jsonl, .json (an array, an object holding one list of objects, or lines after all), .csv
and .parquet, each also .gz; a folder of such files; and, through the `datasets` library, a folder
written by `save_to_disk` or a hub name `owner/name` or `owner/name:config`.

A bad line never raises and is never lost: it comes out as a `Problem` in its place, to be counted.
Blank lines say nothing and are skipped; a leading byte-order mark and CRLF endings are tolerated.
What makes a whole file unreadable (absent, empty, not parquet) is a ValueError.

Left out: streaming from the hub, archives, nested folders. CSV cells are texts.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import importlib
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

MAX_LINE_BYTES = 16 * 2**20
MAX_JSON_BYTES = 2**30
MAX_DEPTH = 100
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, by column."""

    value: Mapping[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A line or row that could not be read: a reason to count by, and what was found there."""

    origin: str
    reason: str
    detail: str = ""


Read = Iterator[Row | Problem]


def read_rows(path: str, split: str = "train") -> Read:
    """The rows and problems of a file, a folder or a `datasets` name, in order.

    Args: split: of a `datasets` name; in a folder, files named after it are preferred.
    Raises: ValueError if there is nothing there, naming what is near it.
    """
    files = data_files(path, split)
    if not files:
        return _read_datasets(path, split)
    return (row for file in files for row in _read_file(file))


def data_files(path: str, split: str = "train") -> tuple[Path, ...]:
    """The files that `read_rows` reads, sorted by name; none where `datasets` reads instead.

    Raises: ValueError if the path does not exist, has no known ending, or the folder is empty.
    """
    place = Path(path).expanduser()
    if place.is_file():
        if _suffix(place) is None:
            raise ValueError(f"{path}: unknown kind of file; known: {', '.join(SUFFIXES)}, each also with .gz")
        return (place,)
    if place.is_dir():
        return () if _is_saved(place) else _folder_files(place, split)
    if _HUB_NAME.fullmatch(path) and _suffix(place) is None and not place.parent.is_dir():
        return ()
    raise ValueError(f"{path}: no such file or folder{_nearest(place)}")


def sha256(files: Iterable[Path]) -> str:
    """The hash of the files' raw bytes, one after another, as they lie on disk."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _suffix(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return next((s for s in SUFFIXES if name.endswith(s)), None)


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SAVED)


def _folder_files(folder: Path, split: str) -> tuple[Path, ...]:
    inside = sorted(p for p in folder.iterdir() if p.is_file() and _suffix(p) and not p.name.startswith("."))
    if not inside:
        raise ValueError(f"{folder}: no data file in this folder; looked for {', '.join(SUFFIXES)}, each also with .gz")
    named = [p for p in inside if re.match(rf"{re.escape(split)}([-_.]|$)", p.name)]
    return tuple(named or inside)


def _nearest(path: Path) -> str:
    """What a missing path may have meant: the closest names in the nearest folder that exists."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    inside = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    if folder == path.parent:
        close = difflib.get_close_matches(path.name, inside, n=3, cutoff=0.5)
        if close:
            return f"; did you mean {' or '.join(str(folder / name) for name in close)}?"
    here = ", ".join(sorted(inside)[:8]) + (", ..." if len(inside) > 8 else "")
    hub = "" if path.suffix else " (a dataset of the hub is written owner/name)"
    return f"; {folder} has {here or 'nothing in it'}{hub}"


def _read_file(path: Path) -> Read:
    reader: Callable[[BinaryIO, str], Read] = _READERS[cast(str, _suffix(path))]
    origin = str(path)
    with _opened(path) as raw:
        packed = path.name.lower().endswith(".gz")
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        try:
            yield from reader(stream, origin)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Problem(origin, "broken gzip", str(error))


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened: {error.strerror}") from error


def _read_jsonl(stream: BinaryIO, origin: str) -> Read:
    for number, line in enumerate(_lines(stream), start=1):
        place = f"{origin}:{number}"
        if line is None:
            yield Problem(place, "line too long", f"over {MAX_LINE_BYTES} bytes")
            continue
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            yield _json_row(text, place)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their endings; None for one that is too long, of which no more is held."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


def _json_row(line: bytes, place: str) -> Row | Problem:
    if b"\0" in line:
        return Problem(place, "NUL byte", f"at byte {line.index(0) + 1} of the line")
    try:
        value, faults = _parse(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Problem(place, "bad UTF-8", f"at byte {error.start + 1} of the line")
    except RecursionError:
        return Problem(place, "nested too deep", f"over {MAX_DEPTH} levels")
    except ValueError as error:
        return Problem(place, "invalid JSON", str(error))
    if faults:
        return Problem(place, faults[0].reason, faults[0].detail)
    return _checked(value, place, deep=_may_be_deep(line), halves=b"\\u" in line)


def _may_be_deep(text: bytes | str) -> bool:
    opening: tuple[Any, Any] = (b"{", b"[") if isinstance(text, bytes) else ("{", "[")
    return text.count(opening[0]) + text.count(opening[1]) > MAX_DEPTH


def _checked(value: Any, place: str, *, deep: bool, halves: bool) -> Row | Problem:
    """A row, if the value is an object that texts can be taken from safely."""
    if not isinstance(value, dict):
        return Problem(place, "not an object", f"a row is an object of columns, got {type(value).__name__}")
    if deep and _depth(value) > MAX_DEPTH:
        return Problem(place, "nested too deep", f"over {MAX_DEPTH} levels")
    if halves and _has_half_character(value):
        return Problem(place, "half a character", "a lone surrogate escape, which no UTF-8 text can hold")
    return Row(value, place)


def _depth(value: Any) -> int:
    level, layer = 0, [value]
    while layer and level <= MAX_DEPTH:
        level += 1
        layer = [x for v in layer if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
    return level


def _has_half_character(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands in a parsed value where JSON says something that we refuse."""

    reason: str
    detail: str


def _parse(text: str) -> tuple[Any, list[_Fault]]:
    """A JSON value, and the faults that stand in it. Raises: ValueError, RecursionError."""
    faults: list[_Fault] = []

    def fault(reason: str, detail: str) -> _Fault:
        faults.append(_Fault(reason, detail))
        return faults[-1]

    def number(literal: str) -> Any:
        value = float(literal)
        return value if math.isfinite(value) else fault("not a finite number", literal)

    def pairs(items: list[tuple[str, Any]]) -> Any:
        value = dict(items)
        if len(value) == len(items):
            return value
        keys = [key for key, _ in items]
        return fault("duplicate key", repr(next(k for k in keys if keys.count(k) > 1)))

    decoder = json.JSONDecoder(
        object_pairs_hook=pairs, parse_float=number, parse_constant=lambda name: fault("not a finite number", name)
    )
    return decoder.decode(text), faults


def _read_json(stream: BinaryIO, origin: str) -> Read:
    data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{origin}: over {MAX_JSON_BYTES} bytes of JSON; write one object a line as .jsonl instead")
    if not data.strip():
        return
    if b"\0" in data:
        yield Problem(origin, "NUL byte", f"at byte {data.index(0) + 1}")
        return
    try:
        text = data.decode("utf-8-sig")
        value, faults = _parse(text)
    except UnicodeDecodeError as error:
        yield Problem(origin, "bad UTF-8", f"at byte {error.start + 1}")
    except RecursionError:
        yield Problem(origin, "nested too deep", f"over {MAX_DEPTH} levels")
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # objects, one a line, under the wrong ending
            yield from _read_jsonl(cast(BinaryIO, io.BytesIO(data)), origin)
        else:
            yield Problem(f"{origin}:{error.lineno}", "invalid JSON", str(error))
    except ValueError as error:
        yield Problem(origin, "invalid JSON", str(error))
    else:
        yield from _listed_rows(value, faults, text, origin)


def _listed_rows(value: Any, faults: list[_Fault], text: str, origin: str) -> Read:
    """The objects of an array, of an object's only list of objects, or the object itself."""
    if isinstance(value, _Fault):
        yield Problem(origin, value.reason, value.detail)
        return
    items = value
    if isinstance(value, dict):
        lists = [k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict | _Fault)]
        if len(lists) > 1:
            yield Problem(origin, "several lists", f"which one holds the rows? {', '.join(lists)}")
            return
        items = value[lists[0]] if lists else [value]
    if not isinstance(items, list):
        items = [items]
    deep, halves = _may_be_deep(text), "\\u" in text
    for number, item in enumerate(items, start=1):
        place = f"{origin}:row {number}"
        found = _find_fault(item) if faults else None
        yield Problem(place, found.reason, found.detail) if found else _checked(item, place, deep=deep, halves=halves)


def _find_fault(value: Any) -> _Fault | None:
    layer = [value]
    while layer:
        found = next((v for v in layer if isinstance(v, _Fault)), None)
        if found:
            return found
        layer = [x for v in layer if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
    return None


def _read_csv(stream: BinaryIO, origin: str) -> Read:
    """Rows under a header line; a quoted cell may hold line breaks, so the origin is its last line."""
    csv.field_size_limit(MAX_LINE_BYTES)
    # Undecodable bytes survive as lone surrogates until the row they belong to is known.
    reader = csv.reader(_csv_lines(stream), strict=True)
    header: list[str] = []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(f"{origin}:{reader.line_num}", "invalid CSV", str(error))
            continue
        if not cells:
            continue
        if not header:
            header = _csv_header(cells, origin)
        else:
            yield _csv_row(header, cells, f"{origin}:{reader.line_num}")


_TOO_LONG = "\udcff" * 2


def _csv_lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(_lines(stream)):
        text = _TOO_LONG + "\n" if line is None else line.decode("utf-8", errors="surrogateescape")
        yield text.removeprefix("\ufeff") if number == 0 else text


def _csv_header(cells: list[str], origin: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((n for n in names if names.count(n) > 1 or not n), None)
    if twice is not None:
        raise ValueError(f"{origin}:1: the header names the column {twice!r} twice or not at all; name each once")
    return names


def _csv_row(header: list[str], cells: list[str], place: str) -> Row | Problem:
    text = "".join(cells)
    if _TOO_LONG in text:
        return Problem(place, "line too long", f"over {MAX_LINE_BYTES} bytes")
    if any("\ud800" <= c <= "\udfff" for c in text):
        return Problem(place, "bad UTF-8")
    if "\0" in text:
        return Problem(place, "NUL byte")
    if len(cells) != len(header):
        return Problem(place, "wrong number of cells", f"{len(cells)} for {len(header)} columns")
    return Row(dict(zip(header, cells, strict=True)), place)


def _read_parquet(stream: BinaryIO, origin: str) -> Read:
    pa, pq = _library("pyarrow", origin), _library("pyarrow.parquet", origin)
    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    try:
        number = 0
        for batch in pq.ParquetFile(source).iter_batches(batch_size=1024):
            for value in batch.to_pylist():
                number += 1
                yield _plain_row(value, f"{origin}:row {number}")
    except pa.ArrowException as error:
        raise ValueError(f"{origin}: cannot be read as parquet: {error}") from error


def _library(name: str, path: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{path}: needs {name}, which is not installed: pip install 'strop[train]'") from error


def _plain_row(value: Mapping[str, Any], place: str) -> Row | Problem:
    try:
        return Row({key: _plain(cell) for key, cell in value.items()}, place)
    except ValueError as error:
        return Problem(place, "not a plain value", str(error))


def _plain(value: Any) -> Any:
    """A typed cell as JSON has it; NaN, which tables write for a missing number, becomes None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        if math.isinf(value):
            raise ValueError(f"{value} is not a finite number")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, date | time):
        return value.isoformat()
    raise ValueError(f"a cell holds {type(value).__name__}, which is neither text, number nor list")


def _read_datasets(path: str, split: str) -> Read:
    """Rows of a saved folder or a hub name. Raises: ValueError with what `datasets` said."""
    datasets = _library("datasets", path)
    name, _, config = path.partition(":")
    try:
        if Path(path).expanduser().is_dir():
            table: Any = datasets.load_from_disk(str(Path(path).expanduser()))
        else:
            table = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # the library raises anything from OSError to its own network errors
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(f"{path}: cannot be loaded by `datasets`: {type(error).__name__}: {first}") from error
    if isinstance(table, Mapping):
        if split not in table:
            raise ValueError(f"{path}: no split {split!r}; it has {', '.join(map(str, table))}")
        table = table[split]
    return (_plain_row(value, f"{path}[{split}]:row {number}") for number, value in enumerate(table, start=1))


_READERS: Mapping[str, Callable[[BinaryIO, str], Read]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
