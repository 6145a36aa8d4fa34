"""A failed stage in words: what, where, and where we know it, the fix. Needs no torch."""

from __future__ import annotations

from strop.recipes.settings import OnPolicyStage, Stage, TrainingStage


def explain(error: Exception, stage: Stage) -> str:
    """An error as one text for the user: what, where, and where we know it, the fix."""
    if is_out_of_memory(error):
        return f"{stage.name}: out of memory. Try smaller settings, in this order:\n" + "\n".join(_smaller(stage))
    text = str(error) or type(error).__name__
    if isinstance(error, ValueError | FileNotFoundError):
        return text if text.startswith((f"{stage.name}: ", f"{stage.name}.")) else f"{stage.name}: {text}"
    return f"{stage.name}: {type(error).__name__}: {text}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or the device; needs no torch."""
    said = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said))


def _smaller(stage: Stage) -> list[str]:
    if not isinstance(stage, TrainingStage):
        return ["  sampling.rows=16", "  sampling.max_completion_length=128"]
    training = stage.training
    tokens = training.micro_batch_tokens or 4096
    lines = [f"  training.micro_batch_tokens={tokens // 2} (the same result, only slower)"]
    if not training.gradient_checkpointing:
        lines.append("  training.gradient_checkpointing=true (the same result, only slower)")
    if isinstance(stage, OnPolicyStage):
        lines.append(f"  sampling.rows={(stage.sampling.rows or 64) // 2} (fewer completions side by side)")
        lines.append(f"  num_generations={max(2, stage.num_generations // 2)}")
    return [*lines, f"  training.max_length={training.max_length // 2}"]
