"""The reference cache: exact values, torn and damaged files, one writer, and keys that miss nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from strop.train.refcache import ReferenceCache, model_hash, module_hash, sequence_key


def quiet(text: str) -> None:
    raise AssertionError(text)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def filled(path: Path, num: int) -> list[int]:
    """A cache of `num` records of 3 numbers each; returns where each record begins."""
    cache = ReferenceCache(path, "m", quiet)
    starts = []
    for i in range(num):
        starts.append(path.stat().st_size)
        cache.put(key(i), [i, -i / 3, 0.5])
        cache.flush()
    cache.close()
    return starts


def readable(path: Path, say: object = quiet) -> list[int]:
    cache = ReferenceCache(path, "m", say)  # type: ignore[arg-type]
    found = []
    for i in range(100):
        values = cache.get(key(i))
        if values is not None:
            np.testing.assert_array_equal(values, np.array([i, -i / 3, 0.5], np.float32))
            found.append(i)
    cache.close()
    return found


def test_values_come_back_bitwise_before_and_after_a_flush_and_in_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ref.cache"
    special = np.array([-0.0, 1e-45, -3.4e38, np.nan, -np.inf, -1 / 3], np.float32)
    cache = ReferenceCache(path, "model fp32 1.0", quiet)
    cache.put(key(1), special)
    cache.put(key(2), [])
    cache.put(key(1), [7.0])  # the first value stands
    for _ in range(2):
        got = cache.get(key(1))
        assert got is not None and got.dtype == np.float32 and got.tobytes() == special.tobytes()
        empty = cache.get(key(2))
        assert empty is not None and empty.shape == (0,)
        assert cache.get(key(3)) is None and len(cache) == 2
        cache.flush()
    cache.close()
    again = ReferenceCache(path, "model fp32 1.0", quiet)
    got = again.get(key(1))
    assert got is not None and got.tobytes() == special.tobytes() and len(again) == 2
    again.close()


def test_a_put_array_is_copied(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "c", "m", quiet)
    values = np.ones(2, np.float32)
    cache.put(key(0), values)
    values[0] = 9
    got = cache.get(key(0))
    assert got is not None and got.tolist() == [1, 1]
    cache.close()


def test_a_tail_torn_anywhere_is_dropped_said_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "c"
    starts = filled(path, 3)
    whole = path.read_bytes()
    for cut in range(starts[2] + 1, len(whole)):
        path.write_bytes(whole[:cut])
        said: list[str] = []
        assert readable(path, said.append) == [0, 1]
        assert len(said) == 1 and f"the last {cut - starts[2]} bytes" in said[0]
        assert path.read_bytes() == whole[: starts[2]]
    cache = ReferenceCache(path, "m", quiet)
    cache.put(key(2), [2, -2 / 3, 0.5])
    cache.close()
    assert path.read_bytes() == whole


def test_a_header_cut_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "c"
    header_bytes = filled(path, 1)[0]
    header = path.read_bytes()[:header_bytes]
    for cut in range(header_bytes):
        path.write_bytes(header[:cut])
        assert readable(path) == []
        assert path.read_bytes() == header


def test_a_flipped_bit_anywhere_in_a_record_costs_that_record_only_or_what_follows_an_untrusted_length(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c"
    starts = filled(path, 4)
    whole = path.read_bytes()
    for at in range(starts[1], starts[2]):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        said: list[str] = []
        length_hit = starts[1] + 32 <= at < starts[1] + 36
        assert readable(path, said.append) == ([0] if length_hit else [0, 2, 3]), at
        assert said, at


def test_zeros_after_the_end_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "c"
    filled(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    said: list[str] = []
    assert readable(path, said.append) == [0, 1] and said
    assert path.read_bytes() == whole


def test_another_identity_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "c", 1)
    with pytest.raises(ValueError, match="made for another model, precision, temperature or version; remove it"):
        ReferenceCache(tmp_path / "c", "other", quiet)
    (tmp_path / "d").write_text("a text file")
    with pytest.raises(ValueError, match="is no cache of reference log-probs"):
        ReferenceCache(tmp_path / "d", "m", quiet)
    (tmp_path / "e").write_bytes(b"short")
    with pytest.raises(ValueError, match="is no cache"):
        ReferenceCache(tmp_path / "e", "m", quiet)
    ReferenceCache(tmp_path / "c", "m", quiet).close()  # a refused file is released


def test_a_second_process_reads_only(tmp_path: Path) -> None:
    path = tmp_path / "c"
    filled(path, 2)
    writer = ReferenceCache(path, "m", quiet)
    code = """
import sys
from pathlib import Path
from strop.train.refcache import ReferenceCache
said = []
cache = ReferenceCache(Path(sys.argv[1]), "m", said.append)
assert not cache.writable and "being written by another process" in said[0]
assert cache.get((1).to_bytes(32, "big")).tolist()[0] == 1
cache.put((9).to_bytes(32, "big"), [9.0])
cache.close()
assert 'torch' not in sys.modules
"""
    before = path.read_bytes()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.read_bytes() == before
    writer.put(key(2), [2, -2 / 3, 0.5])
    writer.close()
    assert readable(path) == [0, 1, 2]


def test_a_reader_beside_the_writer_keeps_what_it_puts_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "c"
    writer = ReferenceCache(path, "m", quiet)
    said: list[str] = []
    reader = ReferenceCache(path, "m", said.append)
    reader.put(key(5), [1.5])
    reader.flush()
    got = reader.get(key(5))
    assert got is not None and got.tolist() == [1.5] and writer.get(key(5)) is None
    reader.close()
    writer.close()


def test_large_caches_are_written_as_they_grow_and_opened_quickly(tmp_path: Path) -> None:
    path = tmp_path / "c"
    cache = ReferenceCache(path, "m", quiet)
    values = np.linspace(-5, 0, 60, dtype=np.float32)
    for i in range(100_000):
        cache.put(key(i), values)
    assert path.stat().st_size > 25_000_000  # no more than a megabyte is held back
    cache.close()
    start = time.process_time()
    cache = ReferenceCache(path, "m", quiet)
    seconds = time.process_time() - start
    assert len(cache) == 100_000 and seconds < 2, seconds
    got = cache.get(key(99_999))
    assert got is not None and got.tobytes() == values.tobytes()
    cache.close()


BASE = {
    "model": "abc",
    "precision": "fp32",
    "temperature": 1.0,
    "prompt_ids": (1, 2),
    "completion_ids": (3, 4),
    "trained": (True, True),
}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "abd"},
        {"precision": "bf16"},
        {"temperature": 0.9},
        {"prompt_ids": (1, 3)},
        {"completion_ids": (3, 5)},
        {"trained": (False, True)},
        {"prompt_ids": (1,), "completion_ids": (2, 3), "trained": (True, True)},
        {"prompt_ids": (1, 2, 3), "completion_ids": (4,), "trained": (True,)},
    ],
)
def test_the_key_depends_on_everything(change: dict[str, object]) -> None:
    assert sequence_key(**{**BASE, **change}) != sequence_key(**BASE)  # type: ignore[arg-type]
    assert sequence_key(**{**BASE, "trained": [1, True], "temperature": 1}) == sequence_key(**BASE)  # type: ignore[arg-type]


def test_model_hash_is_of_the_contents_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    first = model_hash(tmp_path / "a")
    assert first == model_hash(tmp_path / "b") == model_hash(tmp_path / "a")
    (tmp_path / "b" / "README.md").write_text("irrelevant")
    assert model_hash(tmp_path / "b") == first
    (tmp_path / "b" / "model.safetensors").write_bytes(b"weighty")
    assert model_hash(tmp_path / "b") != first
    (tmp_path / "a" / "config.json").write_text('{"rope": 2}')
    assert model_hash(tmp_path / "a") != first
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no model folder"):
        model_hash(tmp_path / "a")


def test_module_hash_sees_values_names_dtypes_shapes_and_config() -> None:
    def make() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(4, 4)

    base = module_hash(make(), {"rope": 1})
    assert module_hash(make().train(False), {"rope": 1}) == base
    changed = make()
    with torch.no_grad():
        changed.weight[0, 0] += 1e-6
    reshaped = make()
    reshaped.weight = nn.Parameter(reshaped.weight.detach().reshape(2, 8))
    others = [
        module_hash(changed, {"rope": 1}),
        module_hash(reshaped, {"rope": 1}),
        module_hash(make().bfloat16(), {"rope": 1}),
        module_hash(nn.Sequential(make()), {"rope": 1}),
        module_hash(make(), {"rope": 2}),
    ]
    assert len({base, *others}) == 6
