"""What this machine and installation have, for `strop doctor`. Imports torch only when asked to."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from strop import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "pydantic", "typer", "rich")


def examine(*, full: bool = False) -> dict[str, Any]:
    """Facts as plain values, with a list of problems, each with its fix.

    Args: full: also import torch and say what it sees.
    """
    versions = {name: _version(name) for name in PACKAGES}
    threads = os.environ.get("OMP_NUM_THREADS")
    free = shutil.disk_usage(Path.cwd()).free
    out: dict[str, Any] = {
        "strop": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "cores": available_cores(),
        "omp_num_threads": threads,
        "memory_gib": _gib(_memory("MemTotal")),
        "memory_free_gib": _gib(_memory("MemAvailable")),
        "disk_free_gib": _gib(free),
        "cpu_features": _cpu_features(),
        "gpus": _gpus(),
        "sandbox": _sandbox(),
    }
    if full:
        out["torch"] = _torch()
    out["problems"] = _problems(out)
    return out


def as_text(facts: dict[str, Any]) -> str:
    """The facts for a terminal."""
    lines = []
    for key, value in facts.items():
        if key == "problems":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v if v is not None else 'missing'}" for k, v in value.items())
        if isinstance(value, list):
            value = ", ".join(value)
        lines.append(f"{key.replace('_', ' '):<16} {'none' if value in (None, '') else value}")
    lines += [f"problem: {text}" for text in facts["problems"]] or ["no problems found"]
    return "\n".join(lines) + "\n"


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells
        return os.cpu_count() or 1


def _problems(facts: dict[str, Any]) -> list[str]:
    found = []
    missing = [name for name in ("torch", "transformers", "tokenizers", "safetensors") if not facts["packages"][name]]
    if missing:
        found.append(f"{', '.join(missing)} missing, so nothing can be trained: pip install 'strop[train]'")
    threads = facts["omp_num_threads"]
    if threads is not None and threads.isdigit() and int(threads) > facts["cores"]:
        fix = f"set OMP_NUM_THREADS={facts['cores']}, or threads={facts['cores']} in the recipe"
        found.append(
            f"OMP_NUM_THREADS={threads} is more than the {facts['cores']} cores here, which is far slower; {fix}"
        )
    if facts["disk_free_gib"] is not None and facts["disk_free_gib"] < 2:
        found.append(f"only {facts['disk_free_gib']} GiB of disk are free here; set runs=FOLDER to another disk")
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory(key: str) -> int | None:
    """Bytes from /proc/meminfo; null on systems without it."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 if found else None


def _cpu_features() -> list[str]:
    """Which of the instructions that matter here the processor has."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return []
    flags = next((set(line.split()) for line in text.splitlines() if line.startswith(("flags", "Features"))), set())
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]


def _gpus() -> list[str]:
    """NVIDIA GPUs by the driver's files; whether torch can use them only torch can say."""
    folder = Path("/proc/driver/nvidia/gpus")
    found = sorted(folder.glob("*/information")) if folder.is_dir() else []
    models = [line.split(":", 1)[1].strip() for f in found for line in f.read_text().splitlines() if "Model:" in line]
    return models


def _sandbox() -> str:
    """How programs written by a model are isolated here: the tier that withstands a battery of attacks."""
    from strop.rewards.code.isolation import summary

    return summary()


def _torch() -> dict[str, str]:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "version": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "cuda": ", ".join(devices) or "no device",
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _gib(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else round(num_bytes / 2**30, 1)
