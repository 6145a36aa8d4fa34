"""Checkpoints: bitwise round trips, damage that is detected, and kills that lose nothing visible."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from strop.train import checkpoint
from strop.train.checkpoint import flatten_optimizer, load, save, tensor_bytes, unflatten_optimizer
from strop.train.optim import AdamW, Muon


def quiet(text: str) -> None:
    raise AssertionError(text)


def tiny(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3,), float(step))}, "optimizer": {"0.step": torch.tensor(float(step))}}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_every_dtype_and_shape_comes_back_bitwise_and_the_library_reads_the_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5, 3, generator=generator)
    tensors = {
        "bf16": noise.bfloat16(),
        "half": noise.half(),
        "double": noise.double() / 3,
        "eight": noise.to(torch.float8_e4m3fn),
        "step": torch.tensor(7.0),
        "count": torch.tensor(2**62 + 1),
        "mask": noise > 0,
        "bytes": torch.arange(7, dtype=torch.uint8),
        "empty": torch.zeros(0, 4),
        "transposed": noise.T,
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "grad": noise.clone().requires_grad_(),
    }
    path = save(tmp_path, 12, {"model": tensors}, {}, keep=1)
    assert path.name == "step-000012"
    found = load(tmp_path, quiet)
    assert found is not None and found.step == 12
    for read in (found.tensors["model"], load_file(path / "model.safetensors")):
        assert set(read) == set(tensors)
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape, name
            assert bytes(tensor_bytes(read[name])) == bytes(tensor_bytes(tensor)), name


def test_state_comes_back_as_json_says_it(tmp_path: Path) -> None:
    state = {
        "kl": 0.1 + 0.2,
        "best": float("inf"),
        "seed": 2**70,
        "who": "naïve",
        "none": None,
        "list": [1, [2.5, True]],
    }
    save(tmp_path, 0, {}, state, keep=1)
    found = load(tmp_path, quiet)
    assert found is not None and found.state == state


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"rng": {"torch": torch.zeros(2)}}, "state.rng.torch: a Tensor is no plain value"),
        ({"counts": {3: 4}}, "state.counts: the key 3 is no text"),
        ({"a": [0, np.float32(1)]}, r"state.a\[1\]: a float32"),
    ],
)
def test_state_that_json_would_change_is_refused_and_nothing_is_written(tmp_path: Path, state: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        save(tmp_path, 0, {}, state, keep=1)
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_without_a_name_is_refused_and_earlier_checkpoints_stay(tmp_path: Path) -> None:
    save(tmp_path, 1, tiny(1), {}, keep=1)
    with pytest.raises(ValueError, match="z: a checkpoint cannot hold torch.complex64"):
        save(tmp_path, 2, {"model": {"z": torch.zeros(2, dtype=torch.complex64)}}, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    embed, head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
    head.weight = embed.weight
    module = nn.ModuleDict({"embed": embed, "head": head})
    path = save(tmp_path, 3, {"model": module.state_dict()}, {}, keep=1)
    assert (path / "model.safetensors").stat().st_size < 50 * 8 * 4 + 200
    found = load(tmp_path, quiet)
    assert found is not None
    model = found.tensors["model"]
    assert torch.equal(model["head.weight"], embed.weight)
    assert model["head.weight"].data_ptr() == model["embed.weight"].data_ptr()


def test_overlapping_views_are_no_ties(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    save(tmp_path, 0, {"model": {"all": base, "head": base[:3], "view": base.view(2, 3)}}, {}, keep=1)
    found = load(tmp_path, quiet)
    assert found is not None
    assert found.tensors["model"]["head"].tolist() == [0, 1, 2]
    assert found.tensors["model"]["view"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_only_the_last_ones_are_kept_and_the_newest_by_number_is_loaded(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1_000_000):
        save(tmp_path, step, tiny(step), {"step": step}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000010", "step-1000000"]
    found = load(tmp_path, quiet)
    assert found is not None and found.step == found.state["step"] == 1_000_000
    save(tmp_path, 5, tiny(5), {}, keep=1)  # a run rewound to an earlier step keeps what it has just saved
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000005", "step-1000000"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, quiet) is None
    assert load(tmp_path / "absent", quiet) is None


def test_a_second_save_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    save(tmp_path, 4, tiny(4), {"try": 1}, keep=1)
    save(tmp_path, 4, tiny(5), {"try": 2}, keep=1)
    found = load(tmp_path, quiet)
    assert found is not None and found.state == {"try": 2}
    assert found.tensors["model"]["w"].tolist() == [5, 5, 5]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_any_flipped_bit_is_found_said_and_the_one_before_is_loaded(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1, tiny(1), {"step": 1}, keep=2)
    path = save(tmp_path, 2, tiny(2), {"step": 2}, keep=2)
    good = (path / name).read_bytes()
    for at in range(0, len(good), max(1, len(good) // 40)):
        flip(path / name, at)
        said: list[str] = []
        found = load(tmp_path, said.append)
        assert found is not None and found.step == 1, at
        assert "step-000002 is damaged and is passed over" in said[0] and "step 1" in said[1]
        (path / name).write_bytes(good)
    found = load(tmp_path, quiet)
    assert found is not None and found.step == 2


def test_a_cut_file_is_damage_and_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    path = save(tmp_path, 1, tiny(1), {}, keep=1)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    said: list[str] = []
    with pytest.raises(ValueError, match=r"none of 1 checkpoints verifies .*; remove them to restart"):
        load(tmp_path, said.append)
    assert "bytes, not" in said[0]


def test_a_missing_file_and_a_missing_part_are_errors(tmp_path: Path) -> None:
    save(tmp_path, 1, tiny(1), {}, keep=2)
    path = save(tmp_path, 2, {"model": tiny(2)["model"]}, {}, keep=2)
    with pytest.raises(ValueError, match="the checkpoint has no optimizer, which this run needs"):
        load(tmp_path, quiet, parts=("model", "optimizer"))
    assert load(tmp_path, quiet, parts=("model",)) is not None
    (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing; restore the file or remove"):
        load(tmp_path, quiet)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1, {}, {}, keep=1) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["format"] = 99
    path.write_text(json.dumps({**manifest, "sha256": checkpoint._hash_json(manifest)}))
    with pytest.raises(ValueError, match="format 99, this version reads 1: upgrade strop"):
        load(tmp_path, quiet)


def test_what_reads_back_differently_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, tiny(1), {}, keep=1)
    write = checkpoint._write

    def failing_disk(path: Path, pieces: object) -> dict[str, object]:
        entry = write(path, pieces)  # type: ignore[arg-type]
        if path.name == "model.safetensors":
            flip(path, -1)
        return entry

    monkeypatch.setattr(checkpoint, "_write", failing_disk)
    with pytest.raises(OSError, match="reads back other than it was written"):
        save(tmp_path, 2, tiny(2), {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_saving_copies_no_contiguous_cpu_tensor(tmp_path: Path) -> None:
    tensor = torch.zeros(1 << 23)
    assert np.frombuffer(tensor_bytes(tensor), np.uint8).ctypes.data == tensor.data_ptr()
    tracemalloc.start()
    save(tmp_path, 0, {"model": {"w": tensor}}, {}, keep=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("settings", [AdamW(lr=0.1, weight_decay=0.1), Muon(lr=0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_resumed_from_disk_is_training_never_stopped(
    tmp_path: Path, settings: AdamW | Muon, dtype: torch.dtype
) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).to(dtype)

    def train(module: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
        for step in range(start, stop):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).to(dtype)
            optimizer.zero_grad()
            module(x).float().pow(2).sum().backward()
            optimizer.step()

    whole = make()
    train(whole, settings(whole), 0, 6)
    half = make()
    optimizer = settings(half)
    train(half, optimizer, 0, 3)
    tensors, plain = flatten_optimizer(optimizer.state_dict())
    assert tensors["0.step" if isinstance(settings, AdamW) else "2.step"].shape == ()
    save(tmp_path, 3, {"model": half.state_dict(), "optimizer": tensors}, {"optimizer": plain}, keep=1)

    found = load(tmp_path, quiet, parts=("model", "optimizer"))
    assert found is not None
    resumed = make()
    resumed.load_state_dict(found.tensors["model"])
    optimizer = settings(resumed)
    state = unflatten_optimizer(found.tensors["optimizer"], found.state["optimizer"])
    assert state["param_groups"] == optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    train(resumed, optimizer, 3, 6)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_plain_optimizer_values_come_back_and_tensor_rates_are_refused() -> None:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = torch.optim.Rprop([p])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["note"] = 3
    tensors, plain = flatten_optimizer(state)
    again = unflatten_optimizer(tensors, json.loads(json.dumps(plain)))
    assert again["state"][0]["note"] == 3 and again["param_groups"] == state["param_groups"]
    state["param_groups"][0]["lr"] = torch.tensor(0.1)
    with pytest.raises(ValueError, match=r"optimizer.param_groups\[0\].lr: a Tensor"):
        flatten_optimizer(state)


EVERY_CALL = """
import os, shutil, sys
from pathlib import Path
import torch
from strop.train.checkpoint import load, save

# Dies at the n-th call that touches the disk, for every n: children are forked, so torch is imported once.
def child(folder, steps, die_at):
    calls = 0
    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == die_at:
                os._exit(9)
            return function(*args, **kwargs)
        return call
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    for step in steps:
        save(folder, step, {"model": {"w": torch.full((4,), float(step))}}, {"step": step}, keep=1)
    os._exit(0)

root = Path(sys.argv[1])
for name, steps in (("next", (1,)), ("same", (0,))):
    for n in range(1, 400):
        folder = root / f"{name}{n}"
        save(folder, 0, {"model": {"w": torch.zeros(4)}}, {"step": 0}, keep=1)
        pid = os.fork()
        if pid == 0:
            child(folder, steps, n)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found = load(folder, lambda text: sys.exit(f"{name} {n}: {text}"))
        assert found is not None, (name, n)
        assert found.tensors["model"]["w"].tolist() == [found.state["step"]] * 4 == [found.step] * 4
        save(folder, 7, {"model": {"w": torch.zeros(4)}}, {"step": 7}, keep=1)
        assert [p.name for p in folder.iterdir()] == ["step-000007"], list(folder.iterdir())
        shutil.rmtree(folder)
        if status == 0:
            print(name, n)
            break
    else:
        sys.exit("never finished")
"""


def test_a_death_at_every_disk_call_leaves_a_whole_checkpoint_and_the_next_save_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERY_CALL, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    deaths = [int(line.split()[1]) - 1 for line in done.stdout.splitlines()]
    assert len(deaths) == 2 and min(deaths) >= 10, done.stdout


RANDOM_KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from strop.train.checkpoint import load, save

folder, delays = Path(sys.argv[1]), [float(x) for x in sys.argv[2:]]
first = 0
for delay in delays:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for step in range(first, 10**6):
            save(folder, step, {"model": {"w": torch.full((50_000,), float(step))}}, {"step": step}, keep=2)
            os.write(writer, step.to_bytes(8, "little"))
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(writer)
    done = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
    os.close(reader)
    last = int.from_bytes(done[-8:], "little") if done else first - 1
    found = load(folder, lambda text: sys.exit(text))
    if last >= 0 or found is not None:
        assert found is not None and found.step in (last, last + 1), (found, last)
        assert found.state == {"step": found.step} and bool((found.tensors["model"]["w"] == found.step).all())
        first = found.step + 1
print(first)
"""


def test_sigkill_at_random_moments_loses_no_finished_save(tmp_path: Path) -> None:
    rng = random.Random(0)
    delays = [str(rng.uniform(0.001, 0.12)) for _ in range(25)]
    done = subprocess.run(
        [sys.executable, "-c", RANDOM_KILLS, str(tmp_path), *delays], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
