"""A judge that is a language model in this process.

    backend: {name: model, path: my-judge}

A verdict is not hoped for but computed: behind the prompt (and what the model thought, where it was asked
to) stands the verdict's line up to its value, and each option is scored as the line's continuation. So every
reply is well-formed, and the options' probabilities are exact, also of those that are several tokens ("10").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from strop.judges.protocol import Reply, Request
from strop.judges.usage import Usage, usage_of
from strop.lazy import lazy_module

if TYPE_CHECKING:
    from strop.judges import local
else:
    local = lazy_module("strop.judges.local")  # brings torch


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """What a model of this process answers; a prompt that is too long for it is an abstention.

    At a temperature above 0 what is drawn is a function of the requests asked together.

    Attributes:
        path: a model's folder or hub name, or `@stage`.
        rows: replies written side by side; changes speed and memory only.
        micro_batch_tokens: packed tokens a forward holds at most.
    """

    models: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    name: Literal["model"] = "model"
    device: str = "auto"
    rows: int | None = None
    micro_batch_tokens: int = 4096

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("model.path is empty; name the judge's model folder")
        for key in ("rows", "micro_batch_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"model.{key} must be positive, got {value}")

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        replies = local.answers(self, requests)
        usage_of(self).add(Usage(calls=len(replies), failed=sum(reply.text is None for reply in replies)))
        return replies

    def check(self) -> None:
        """Loads the model. Raises: ValueError naming the path where there is none."""
        local.opened(self.path, self.device)
