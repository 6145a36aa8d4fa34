"""strop: preference and reward training for language models.

    import strop
    result = strop.run("dpo", {"model": "path/to/model", "data": "pairs.jsonl", "objective.beta": 0.1})
    print(result.metrics["dpo"], result.model)

Names are imported when first used; `import strop` alone imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strop.data.formats import Dataset, load_dataset
    from strop.recipes.config import RecipeError, dump, load_recipe
    from strop.recipes.run import RunResult, run
    from strop.recipes.settings import Recipe
    from strop.report import write_report
    from strop.types import Completion, Group, Message, Verdict

__version__ = "0.1.0"

_HOMES = {
    "Completion": "strop.types",
    "Dataset": "strop.data.formats",
    "Group": "strop.types",
    "Message": "strop.types",
    "Recipe": "strop.recipes.settings",
    "RecipeError": "strop.recipes.config",
    "RunResult": "strop.recipes.run",
    "Verdict": "strop.types",
    "dump": "strop.recipes.config",
    "load_dataset": "strop.data.formats",
    "load_recipe": "strop.recipes.config",
    "run": "strop.recipes.run",
    "write_report": "strop.report",
}

__all__ = [
    "Completion",
    "Dataset",
    "Group",
    "Message",
    "Recipe",
    "RecipeError",
    "RunResult",
    "Verdict",
    "__version__",
    "dump",
    "load_dataset",
    "load_recipe",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'strop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
