"""Converting a model's folder to GGUF with llama.cpp's own script, where there is one.

It is looked for at `LLAMA_CPP` (the script, or the folder of llama.cpp that it is in) and then on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "LLAMA_CPP"
MAGIC = b"GGUF"
"""How every GGUF file begins."""


def find_converter() -> Path | None:
    """The script, or null where there is none.

    Raises: ValueError if LLAMA_CPP names something else.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        for candidate in (path, path / SCRIPT):
            if candidate.is_file():
                return candidate
        raise ValueError(f"{VARIABLE}={named}: no {SCRIPT} there; name the folder of llama.cpp, or the script itself")
    found = shutil.which(SCRIPT)
    if found is None:  # a script without the right to run is still one
        places = (Path(place) / SCRIPT for place in os.environ.get("PATH", "").split(os.pathsep) if place)
        return next((candidate for candidate in places if candidate.is_file()), None)
    return Path(found)


def require_converter() -> Path:
    """Raises ValueError with the way to get the script where there is none."""
    found = find_converter()
    if found is None:
        raise ValueError(
            f"gguf: llama.cpp's {SCRIPT} is neither at {VARIABLE} nor on PATH; clone "
            f"https://github.com/ggml-org/llama.cpp and set {VARIABLE}=path/to/llama.cpp, or leave gguf out"
        )
    return found


def convert(folder: Path, outtype: str, name: str) -> str:
    """Convert the folder; the new file's name in it.

    Raises: ValueError with the script's own last words if it fails or leaves no GGUF file.
    """
    script = require_converter()
    file = folder / f"{name}-{outtype}.gguf"
    command = [sys.executable, str(script), str(folder), "--outfile", str(file), "--outtype", outtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stderr + done.stdout).strip().splitlines() if line.strip()]
    if done.returncode != 0 or not file.is_file():
        last = " / ".join(said[-3:]) or "it said nothing"
        raise ValueError(f"{script} could not convert the model: {last}. Leave gguf out to ship without it")
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{script} left a file that is no GGUF: {file.name}. Leave gguf out to ship without it")
    return file.name
