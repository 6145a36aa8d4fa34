"""Finding and running llama.cpp's converter, with a script in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from strop.recipes.shipping.gguf import SCRIPT, convert, find_converter, require_converter

GOOD = """
import argparse, pathlib
p = argparse.ArgumentParser()
p.add_argument("model"), p.add_argument("--outfile"), p.add_argument("--outtype")
a = p.parse_args()
assert (pathlib.Path(a.model) / "config.json").is_file()
pathlib.Path(a.outfile).write_bytes(b"GGUF" + a.outtype.encode())
"""


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / SCRIPT).write_text(GOOD)
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    return folder


def test_it_is_run_as_llama_cpp_says(llama: Path, tmp_path: Path) -> None:
    name = convert(tmp_path / "model", "q8_0", "mine")
    assert name == "mine-q8_0.gguf" and (tmp_path / "model" / name).read_bytes() == b"GGUFq8_0"


def test_where_it_is_looked_for(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_converter() == llama / SCRIPT
    monkeypatch.setenv("LLAMA_CPP", str(llama / SCRIPT))
    assert find_converter() == llama / SCRIPT
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path / "model"))
    with pytest.raises(ValueError, match=f"no {SCRIPT} there"):
        find_converter()
    monkeypatch.delenv("LLAMA_CPP")
    monkeypatch.setenv("PATH", str(llama))
    assert find_converter() == llama / SCRIPT
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_converter() is None
    with pytest.raises(ValueError, match="set LLAMA_CPP=path/to/llama.cpp, or leave gguf out"):
        require_converter()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("raise SystemExit('Model Foo is not supported')", "could not convert the model: Model Foo is not supported"),
        ("pass", "could not convert the model: it said nothing"),
        (GOOD.replace('b"GGUF"', 'b"GGML"'), "left a file that is no GGUF"),
    ],
)
def test_a_converter_that_fails(script: str, words: str, llama: Path, tmp_path: Path) -> None:
    (llama / SCRIPT).write_text(script)
    with pytest.raises(ValueError, match=words):
        convert(tmp_path / "model", "f16", "mine")
