"""Every generator of reasoning-gym is checked once; the page names those that fail."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from strop.rewards.gym.check import self_check
from strop.rewards.gym.client import ask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym"),
]

PAGE = Path(__file__).parents[2] / "docs/instructions.md"
NAMES = "import json; from reasoning_gym.factory import DATASETS; print(json.dumps(sorted(DATASETS)))"


def test_the_generators_that_fail_their_check_are_those_of_the_page() -> None:
    out = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, check=True, timeout=120)
    failed = set()
    for name in json.loads(out.stdout.splitlines()[-1]):
        config = {"seed": 7, "size": 12}
        reply = ask({"op": "make", "name": name, "config": config, "start": 0, "stop": 12}, timeout_s=120)
        if "refused" in reply or self_check(name, config, reply["entries"], timeout_s=30):
            failed.add(name)
    table = PAGE.read_text("utf-8").split("## Generators that are refused")[1]
    assert failed == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
