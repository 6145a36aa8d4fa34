"""Every file format, and every way in which a line can be no row: counted, placed, never raised."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from strop.data import read
from strop.data.read import Problem, Row, data_files, read_rows, sha256

ROWS = [{"prompt": "hé", "n": 1}, {"prompt": "b\nc", "n": 2.5}, {"prompt": "", "n": None}]


def write(path: Path, data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def values(path: str) -> list[dict]:
    items = list(read_rows(path))
    assert all(isinstance(item, Row) for item in items), items
    return [dict(item.value) for item in items]


def one_problem(path: str) -> Problem:
    (problem,) = [item for item in read_rows(path) if isinstance(item, Problem)]
    return problem


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_jsonl(tmp_path, gz):
    path = write(tmp_path / f"a.jsonl{gz}", "\n".join(map(json.dumps, ROWS)))
    assert values(path) == ROWS
    assert [item.origin for item in read_rows(path)] == [f"{path}:{k}" for k in (1, 2, 3)]


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"about": "x", "tags": ["a"], "examples": rows}])
def test_json(tmp_path, gz, wrap):
    path = write(tmp_path / f"a.json{gz}", json.dumps(wrap(ROWS), indent=1))
    assert values(path) == ROWS
    assert next(iter(read_rows(path))).origin == f"{path}:row 1"


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_csv(tmp_path, gz):
    path = write(tmp_path / f"a.csv{gz}", 'prompt,n\r\nhé,1\r\n"b\nc",2.5\r\n\r\n"say ""x"", y",\r\n')
    assert values(path) == [
        {"prompt": "hé", "n": "1"},
        {"prompt": "b\nc", "n": "2.5"},
        {"prompt": 'say "x", y', "n": ""},
    ]
    assert [item.origin for item in read_rows(path)] == [f"{path}:{k}" for k in (2, 4, 6)]


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_parquet(tmp_path, gz):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"turns": [{"role": "user", "content": "a"}], "n": 1.5}, {"turns": [], "n": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t")
    path = write(tmp_path / f"a.parquet{gz}", (tmp_path / "t").read_bytes())
    assert values(path) == [rows[0], {"turns": [], "n": None}]


def test_parquet_cells_that_no_json_has(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [b"\xff", None], "y": [1.0, float("inf")]}), path)
    reasons = [item.reason for item in read_rows(path) if isinstance(item, Problem)]
    assert reasons == ["not a plain value"] * 2
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        list(read_rows(write(tmp_path / "b.parquet", b"PAR1 but not really")))


def test_json_lines_under_the_ending_json(tmp_path):
    assert values(write(tmp_path / "a.json", "\n".join(map(json.dumps, ROWS)))) == ROWS
    assert values(write(tmp_path / "b.json", '{"prompt": "only"}')) == [{"prompt": "only"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_byte_order_mark_crlf_and_blank_lines_are_tolerated(tmp_path, name):
    body = "prompt\r\nx\r\n\r\ny\r\n" if name.endswith("csv") else '{"prompt": "x"}\r\n\r\n \r\n{"prompt": "y"}\r\n'
    assert values(write(tmp_path / name, b"\xef\xbb\xbf" + body.encode())) == [{"prompt": "x"}, {"prompt": "y"}]


BAD_LINES = {
    b'{"a": "\xff"}': "bad UTF-8",
    b'{"a": "x\x00"}': "NUL byte",
    b'{"a": NaN}': "not a finite number",
    b'{"a": [1, -Infinity]}': "not a finite number",
    b'{"a": 1e999}': "not a finite number",
    b'{"a": 1, "a": 2}': "duplicate key",
    b'{"b": {"a": 1, "a": 2}}': "duplicate key",
    b'{"a": ': "invalid JSON",
    b'{"a": 1} x': "invalid JSON",
    b'{"a": ' + b"9" * 5000 + b"}": "invalid JSON",
    b"[1, 2]": "not an object",
    b'"text"': "not an object",
    b"null": "not an object",
    b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}": "nested too deep",
    b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}": "nested too deep",
    b'{"a": "\\ud800"}': "half a character",
}


@pytest.mark.parametrize(
    ("line", "reason"), BAD_LINES.items(), ids=[f"{v}-{k}" for k, v in enumerate(BAD_LINES.values())]
)
def test_a_bad_line_is_a_problem_in_its_place_and_the_others_stay(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    items = list(read_rows(path))
    assert [isinstance(item, Row) for item in items] == [True, False, True]
    assert (items[1].reason, items[1].origin) == (reason, f"{path}:2")


def test_what_only_looks_bad_is_read(tmp_path):
    row = {"a": "😀 NaN {{{{[[[[" * 50, "b": "\\ud800", "c": {"a": 1, "b": {"a": 2}}, "d": 1e308}
    assert values(write(tmp_path / "a.jsonl", json.dumps(row))) == [row]


def test_a_line_too_long_is_skipped_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_LINE_BYTES", 50)
    path = write(tmp_path / "a.jsonl", b'{"a": "' + b"x" * 500 + b'"}\n{"a": 2}\n{"a": "' + b"y" * 40 + b'"}\n')
    items = list(read_rows(path))
    assert [item.origin[-1] for item in items] == ["1", "2", "3"]
    assert items[0].reason == "line too long" and [isinstance(i, Row) for i in items] == [False, True, True]


def test_bad_rows_inside_a_json_array(tmp_path):
    path = write(tmp_path / "a.json", '[{"a": 1}, {"a": NaN}, 3, {"a": {"b": 1, "b": 2}}, {"a": 5}]')
    items = list(read_rows(path))
    assert [getattr(i, "reason", "") for i in items] == [
        "",
        "not a finite number",
        "not an object",
        "duplicate key",
        "",
    ]
    assert items[1].origin == f"{path}:row 2"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'[{"a": 1}, {"a": ', "invalid JSON"),
        (b'[{"a": "\xff"}]', "bad UTF-8"),
        (b'[{"a": "\x00"}]', "NUL byte"),
        (b'{"a": [{"x": 1}], "b": [{"x": 1}]}', "several lists"),
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (b"[" * 200_000, "nested too deep"),
        (b"3", "not an object"),
    ],
)
def test_a_json_file_that_is_broken_as_a_whole(tmp_path, body, reason):
    assert one_problem(write(tmp_path / "a.json", body)).reason == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"x", "wrong number of cells"),
        (b"x,y,z", "wrong number of cells"),
        (b"\xff,1", "bad UTF-8"),
        (b"a\x00b,1", "NUL byte"),
        (b'"a"b,1', "invalid CSV"),
    ],
)
def test_bad_csv_rows(tmp_path, line, reason):
    path = write(tmp_path / "a.csv", b"a,b\n1,2\n" + line + b"\n3,4\n")
    assert (one_problem(path).reason, one_problem(path).origin) == (reason, f"{path}:3")
    assert len(list(read_rows(path))) == 3


def test_csv_header_and_unclosed_quote(tmp_path):
    with pytest.raises(ValueError, match="'a'"):
        list(read_rows(write(tmp_path / "a.csv", "a,a\n1,2\n")))
    assert one_problem(write(tmp_path / "b.csv", 'a,b\n1,2\n"x,y\n')).reason == "invalid CSV"
    long = "x" * 200_000  # over the csv module's own default
    assert values(write(tmp_path / "c.csv", f"a\n{long}\n")) == [{"a": long}]


def test_truncated_gzip_keeps_the_rows_before_the_break(tmp_path):
    whole = gzip.compress("\n".join(json.dumps({"a": str(k) * 50}) for k in range(2000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    items = list(read_rows(str(tmp_path / "a.jsonl.gz")))
    assert isinstance(items[0], Row) and items[-1].reason == "broken gzip"
    (tmp_path / "b.jsonl.gz").write_bytes(b"not gzip")
    assert one_problem(str(tmp_path / "b.jsonl.gz")).reason == "broken gzip"


def test_a_folder_gives_its_data_files_sorted_and_prefers_the_split(tmp_path):
    write(tmp_path / "b.jsonl", '{"a": 2}')
    write(tmp_path / "a.csv", "a\n1\n")
    write(tmp_path / "README.md", "no data")
    write(tmp_path / ".hidden.jsonl", '{"a": 9}')
    assert values(str(tmp_path)) == [{"a": "1"}, {"a": 2}]
    write(tmp_path / "train-0001.jsonl", '{"a": 3}')
    write(tmp_path / "training_notes.jsonl", '{"a": 4}')
    assert values(str(tmp_path)) == [{"a": 3}]
    assert [p.name for p in data_files(str(tmp_path), "b")] == ["b.jsonl"]


def test_what_is_missing_is_named_with_what_is_near(tmp_path):
    write(tmp_path / "train.jsonl", "{}")
    with pytest.raises(ValueError, match=r"did you mean .*/train\.jsonl\?"):
        read_rows(str(tmp_path / "trian.jsonl"))
    with pytest.raises(ValueError, match=r"no such file.* has train\.jsonl"):
        read_rows(str(tmp_path / "deep" / "er.jsonl"))
    with pytest.raises(ValueError, match="unknown kind of file"):
        read_rows(write(tmp_path / "a.txt", "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no data file in this folder"):
        read_rows(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="owner/name"):
        read_rows("nothing-here")


def test_a_folder_saved_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"))
    assert values(str(tmp_path / "one")) == rows
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "two"))
    assert [dict(r.value) for r in read_rows(str(tmp_path / "two"), split="test")] == rows
    with pytest.raises(ValueError, match="no split 'train'; it has test"):
        read_rows(str(tmp_path / "two"))


def test_sha256_is_of_the_raw_bytes(tmp_path):
    import hashlib

    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(a, "x")
    write(b, "y")
    assert sha256([a, b]) == hashlib.sha256(b"xy").hexdigest()


def test_real_files_are_read_in_full_and_fast(shared):
    start = time.process_time()
    rows = list(read_rows(str(shared / "gsm8k/train.jsonl.gz")))
    assert time.process_time() - start < 1.0
    assert len(rows) == 7473 and all(isinstance(row, Row) for row in rows)
    for name, number in {
        "bbh": 1750,
        "hh-rlhf": 2312,
        "finegrained_rlhf": 500,
        "prmbench": 394,
        "self_instruct": 427,
    }.items():
        assert len(values(str(shared / name))) == number
