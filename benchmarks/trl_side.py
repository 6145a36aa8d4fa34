"""The peer's side: TRL's own trainers, in their own `train()` loop, one optimizer step a command.

    python benchmarks/trl_side.py CELL FOLDER COLUMN STEPS

COLUMN is `default` (as TRL comes: bf16 autocast, gradient checkpointing, the reference computed
every step, SFT unpacked) or `best` (fp32, no checkpointing, the reference precomputed, SFT packed,
glibc told to keep memory). A step's clock runs from the end of one step to the end of the next:
batch and collator, forward, backward, optimizer, scheduler and logging are all in it. The first
step's metrics, as TRL logs them, go to the parent, which compares them with ours.

PPO is in no TRL of today; its cells run the last release that has it (`side_by_side.PPO_RELEASE`).
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from typing import Any

from agreement import NAMES
from cells import PPO_EPOCHS, Cell, Row, cell_named, desirable, num_tokens, reward, rows
from models import scorer_folder, word
from worker import Channel, keep_memory

PACKED_LENGTH = 512
"""Tokens of one packed SFT sequence."""


class Stopped(Exception):
    """The parent has asked for no more steps."""


def main(cell: Cell, folder: str, column: str, num_steps: int) -> None:
    """Builds the trainer and lets `train()` run at the parent's pace."""
    channel = Channel()
    if column == "best":
        keep_memory()
    import transformers

    transformers.logging.set_verbosity_error()
    data = [rows(cell, step) for step in range(num_steps)]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = BUILD[cell.kind](cell, folder, scratch, column == "best", data)
        trainer.add_callback(pacer(channel, [num_tokens(cell, batch) for batch in data], trainer))
        with contextlib.suppress(Stopped):
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
        "logging_first_step": True,  # of the warm-up: what is compared with ours
    }
    return {**arguments, "bf16": False, "gradient_checkpointing": False} if best else arguments


def dpo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """DPOTrainer on the cell's pairs."""
    from trl import DPOConfig, DPOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    if best:
        arguments["precompute_ref_log_probs"] = True
    return DPOTrainer(model=folder, args=DPOConfig(**arguments), train_dataset=pairs(data))


def orpo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """ORPOTrainer on the cell's pairs; it has no reference."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    return ORPOTrainer(model=folder, args=ORPOConfig(**arguments), train_dataset=pairs(data))


def simpo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """CPOTrainer set to SimPO on the cell's pairs: beta 2, gamma 0.5, no likelihood term; no reference."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    arguments |= {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.0}
    return CPOTrainer(model=folder, args=CPOConfig(**arguments), train_dataset=pairs(data))


def reward_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """RewardTrainer on the cell's pairs, its head the random one that both sides load."""
    from trl import RewardConfig, RewardTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["max_length"] = cell.prompt + cell.response
    arguments["disable_dropout"] = True
    model = str(scorer_folder(folder))
    return RewardTrainer(model=model, args=RewardConfig(**arguments), train_dataset=pairs(data))


def kto_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """KTOTrainer on the cell's completions with their labels.

    Each step's desirable ones stand before the undesirable ones, since TRL's baseline pairs a
    prompt with the completion of the row before it, which must be another prompt's.
    """
    from trl import KTOConfig, KTOTrainer

    arguments = common(cell, scratch, best, len(data))
    arguments["per_device_train_batch_size"] = cell.groups * cell.num_completions
    arguments["max_length"] = cell.prompt + cell.response
    if best:
        arguments["precompute_ref_log_probs"] = True
    records = [
        {
            "prompt": text(row.prompt),
            "completion": answer(row.completions[place]),
            "label": desirable(cell, number, place),
        }
        for batch in data
        for place in range(cell.num_completions)
        for number, row in enumerate(batch)
    ]
    return KTOTrainer(model=folder, args=KTOConfig(**arguments), train_dataset=dataset(records))


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


def ppo_trainer(cell: Cell, folder: str, scratch: str, best: bool, data: list[list[Row]]) -> Any:
    """PPOTrainer on the cell's prompts: policy and reference of one folder, reward and value model of another.

    Its own settings but for temperature 1, and no debug samples. It shuffles prompts as it likes.
    """
    import trl.experimental.ppo.ppo_trainer as ppo
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
    )

    arguments = common(cell, scratch, best, len(data))
    del arguments["max_steps"]
    arguments |= {"total_episodes": cell.groups * len(data), "response_length": cell.response, "temperature": 1.0}
    arguments |= {"num_ppo_epochs": PPO_EPOCHS, "num_sample_generations": 0}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<past>"})  # what stands behind a sampled pad would be masked
    policies = [AutoModelForCausalLM.from_pretrained(folder, dtype="float32") for _ in range(2)]
    heads = [
        AutoModelForSequenceClassification.from_pretrained(scorer_folder(folder), dtype="float32", num_labels=1)
        for _ in range(2)
    ]
    prompts = dataset([{"input_ids": list(row.prompt)} for batch in data for row in batch])
    collate, counts = DataCollatorWithPadding(tokenizer), []

    def counted(examples: Any) -> Any:
        counts.append(sum(len(example["input_ids"]) + cell.response for example in examples))
        return collate(examples)

    trainer = ppo.PPOTrainer(
        args=ppo.PPOConfig(**arguments), processing_class=tokenizer, model=policies[0], ref_model=policies[1],
        reward_model=heads[0], value_model=heads[1], train_dataset=prompts, eval_dataset=prompts.select([]),
        data_collator=counted,
    )  # fmt: skip
    trainer.counts = counts
    generate = ppo.batch_generation

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = generate(*args, **kwargs)
        trainer.rollout_s = time.perf_counter() - start
        return result

    ppo.batch_generation = timed
    return trainer


BUILD = {
    "DPO": dpo_trainer, "ORPO": orpo_trainer, "SimPO": simpo_trainer, "RM": reward_trainer, "KTO": kto_trainer,
    "KTO unpaired": kto_trainer, "SFT": sft_trainer, "GRPO": grpo_trainer, "PPO": ppo_trainer,
}  # fmt: skip


def pacer(channel: Channel, tokens: list[int], trainer: Any) -> Any:
    """A callback that hands each finished step's numbers to the parent and waits for the next command."""
    from transformers import TrainerCallback

    trainer.rollout_s = 0.0
    if trainer.__class__.__name__ == "SFTTrainer":  # packing decides which rows a step gets: count them
        collate, trainer.counts = trainer.data_collator, []

        def counted(examples: Any) -> Any:
            trainer.counts.append(sum(len(example["input_ids"]) for example in examples))
            return collate(examples)

        trainer.data_collator = counted
    counts = vars(trainer).get("counts", tokens)

    class Pacer(TrainerCallback):  # type: ignore[misc]
        start = 0.0
        done = 0
        first: dict[str, float] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            channel.ready()
            return self._next(control)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
            if not self.first:
                self.first = {name: float(number) for name, number in logs.items() if name in NAMES}
            return control

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            seconds = time.perf_counter() - self.start
            real = counts[self.done]
            self.done += 1
            channel.send(seconds=seconds, tokens=real, rollout_s=trainer.rollout_s, first=self.first)
            return self._next(control)

        def _next(self, control: Any) -> Any:
            if channel.receive() == "stop":
                raise Stopped
            self.start = time.perf_counter()
            return control

    return Pacer()


def pairs(data: list[list[Row]]) -> Any:
    """The rows as prompt, chosen and rejected."""
    return dataset(
        [
            {"prompt": text(row.prompt), "chosen": answer(row.completions[0]), "rejected": answer(row.completions[1])}
            for batch in data
            for row in batch
        ]
    )


def dataset(records: list[dict[str, Any]]) -> Any:
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
