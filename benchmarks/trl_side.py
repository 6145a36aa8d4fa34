"""The peer's side: TRL's own trainers, in their own `train()` loop, one optimizer step a command.

    python benchmarks/trl_side.py CELL FOLDER COLUMN STEPS

COLUMN is `default` (as TRL comes: bf16 autocast, gradient checkpointing, the reference computed
every step, SFT unpacked) or `best` (fp32, no checkpointing, the reference precomputed, SFT packed,
glibc told to keep memory). A step's clock runs from the end of one step to the end of the next:
batch and collator, forward, backward, optimizer, scheduler and logging are all in it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

from cells import Cell, Row, cell_named, num_tokens, reward, rows
from models import word
from worker import Channel, keep_memory

PACKED_LENGTH = 512
"""Tokens of one packed SFT sequence."""


def main(cell: Cell, folder: str, column: str, num_steps: int) -> None:
    """Builds the trainer and lets `train()` run at the parent's pace."""
    channel = Channel()
    if column == "best":
        keep_memory()
    import transformers

    transformers.logging.set_verbosity_error()
    data = [rows(cell, step) for step in range(num_steps)]
    with tempfile.TemporaryDirectory() as scratch:
        build = {"DPO": dpo_trainer, "GRPO": grpo_trainer, "SFT": sft_trainer}[cell.kind]
        trainer = build(cell, folder, scratch, column == "best", data)
        trainer.add_callback(pacer(channel, [num_tokens(cell, batch) for batch in data], trainer))
        trainer.train()
    channel.finish()


def common(cell: Cell, scratch: str, best: bool, num_steps: int) -> dict[str, Any]:
    """Arguments every trainer gets: the data's order, no files, no reports; precision by the column."""
    arguments = {
        "output_dir": scratch,
        "max_steps": num_steps,
        "per_device_train_batch_size": cell.groups,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "dataloader_pin_memory": False,
    }
    return {**arguments, "bf16": False, "gradient_checkpointing": False} if best else arguments


def dpo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """DPOTrainer on the cell's pairs."""
    from trl import DPOConfig, DPOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    if best:
        arguments["precompute_ref_log_probs"] = True
    records = [
        {"prompt": text(row.prompt), "chosen": answer(row.completions[0]), "rejected": answer(row.completions[1])}
        for batch in data
        for row in batch
    ]
    return DPOTrainer(model=folder, args=DPOConfig(**arguments), train_dataset=dataset(records))


def sft_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """SFTTrainer on prompt-completion rows; packed into rows of `PACKED_LENGTH` at its best."""
    from trl import SFTConfig, SFTTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    if best:
        tokens = sum(num_tokens(cell, batch) for batch in data) / len(data)
        arguments |= {"packing": True, "max_length": PACKED_LENGTH}
        arguments["per_device_train_batch_size"] = round(tokens / PACKED_LENGTH)
    records = [
        {"prompt": text(row.prompt), "completion": answer(row.completions[0])} for batch in data for row in batch
    ]
    return SFTTrainer(model=folder, args=SFTConfig(**arguments), train_dataset=dataset(records))


def grpo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """GRPOTrainer that samples and trains on the cell's prompts; no reference (beta 0, its default)."""
    from trl import GRPOConfig, GRPOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["per_device_train_batch_size"] = cell.groups * cell.num_completions
    arguments |= {"num_generations": cell.num_completions, "max_completion_length": cell.response}
    arguments["shuffle_dataset"] = False
    records = [{"prompt": text(row.prompt)} for batch in data for row in batch]

    def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward(ids) for ids in completion_ids]

    trainer = GRPOTrainer(
        model=folder, args=GRPOConfig(**arguments), train_dataset=dataset(records), reward_funcs=even_share
    )
    generate = trainer._generate_single_turn

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = generate(*args, **kwargs)
        trainer.rollout_s = time.perf_counter() - start
        return result

    trainer._generate_single_turn = timed
    return trainer


def pacer(channel: Channel, tokens: list[int], trainer: Any) -> Any:
    """A callback that hands each finished step's numbers to the parent and waits for the next command."""
    from transformers import TrainerCallback

    trainer.rollout_s = 0.0
    count = [0]
    collate = trainer.data_collator
    if trainer.__class__.__name__ == "SFTTrainer":  # packing decides which rows a step gets: count them

        def counted(examples: Any) -> Any:
            count.append(sum(len(example["input_ids"]) for example in examples))
            return collate(examples)

        trainer.data_collator = counted

    class Pacer(TrainerCallback):  # type: ignore[misc]
        start = 0.0
        done = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            channel.ready()
            return self._next(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            seconds = time.perf_counter() - self.start
            real = count[self.done + 1] if len(count) > 1 else tokens[self.done]
            self.done += 1
            channel.send(seconds=seconds, tokens=real, rollout_s=trainer.rollout_s)
            return self._next(control)

        def _next(self, control: Any) -> Any:
            if channel.receive() == "stop":
                control.should_training_stop = True
            self.start = time.perf_counter()
            return control

    return Pacer()


def dataset(records: list[dict[str, str]]) -> Any:
    """The records as TRL wants them."""
    from datasets import Dataset

    return Dataset.from_list(records)


def text(ids: tuple[int, ...]) -> str:
    """Token ids as words, which the tokenizer turns back into the same ids."""
    return " ".join(word(i) for i in ids)


def answer(ids: tuple[int, ...]) -> str:
    """A completion's words without its stop token, which the trainers add."""
    return " " + text(ids[:-1])


if __name__ == "__main__":
    main(cell_named(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
