"""Low-rank adapters: a frozen base model, and two thin matrices beside each of its linear layers that train.

The layers are peft's, put into the stock module in place, so that it stays what transformers made and
runs by the same forward as without them; with them switched off it is the base model, which is the
reference of preference and RL methods without a second model in memory.

Left out: adapters of embeddings, output heads and stacked expert tensors, several adapters at once,
dropout (log-probs of two forwards are compared).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from strop.lazy import lazy_module

if TYPE_CHECKING:
    import torch

    from strop.batch import Batch, Outputs
    from strop.model.forward import LanguageModel
else:
    torch = lazy_module("torch")

CONFIG = "adapter_config.json"
NAME = "default"
"""What peft calls the one adapter of a module."""
SHAKE = 0.5
"""B is drawn at this size, over s sqrt(r), while a fresh adapter's paths are compared: about the base's own output."""
INSTALL = "pip install 'strop[lora]'"


def _check(good: bool, text: str) -> None:
    if not good:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """A linear layer computes W x + s B A x with W frozen, s = alpha / r.

    A [r, in] starts uniform in +-1 / sqrt(in) and B [out, r] at 0, so the policy starts as the base model.

    Attributes:
        r: rank. alpha: 2 r is usual.
        targets: all-linear for every linear layer of the trunk, or names as they end, [q_proj, v_proj].
        dropout: must be 0: a policy that drops units at random has no log-prob to compare.
        use_dora: the direction of W + s B A, scaled by a trained magnitude for each output (Liu et al.).
        use_rslora: s = alpha / sqrt(r), for large r (Kalajdzievski).
        quantize: nf4 keeps the frozen weights in 4 bits (Dettmers et al.; CUDA and bitsandbytes only).

    Hu et al. 2021, arXiv:2106.09685, eq. 3; A's start is peft's, the paper's is normal. DoRA: Liu et al.
    2024, arXiv:2402.09353, eq. 5. rsLoRA: Kalajdzievski 2023, arXiv:2312.03732. QLoRA: Dettmers et al. 2023,
    arXiv:2305.14314.
    """

    name: Literal["lora"] = "lora"
    r: int = 16
    alpha: float = 32.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    quantize: Literal["nf4"] | None = None

    def __post_init__(self) -> None:
        _check(self.r >= 1, f"r is {self.r}; the rank must be at least 1 (8 to 64 are usual)")
        _check(self.alpha > 0, f"alpha is {self.alpha}; it must be positive (2 r is usual)")
        _check(bool(self.targets), "targets is empty; give all-linear, or names as [q_proj, v_proj]")
        _check(
            self.dropout == 0, f"dropout is {self.dropout}; it must be 0, since log-probs of two forwards are compared"
        )
        _check(
            not (self.use_dora and self.quantize), "use_dora needs unquantised weights; set quantize=null or drop DoRA"
        )


def is_adapter(path: str) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    folder = Path(path)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(path: str) -> str:
    """The model that an adapter's folder belongs to; any other path or name is its own.

    Raises: ValueError if the folder's config cannot be read or names none.
    """
    return str(read_config(path)["base_model_name_or_path"]) if is_adapter(path) else path


def read_config(path: str) -> dict[str, Any]:
    """An adapter's own settings, as peft writes them.

    Raises: ValueError if they cannot be read or name no base model.
    """
    file = Path(path) / CONFIG
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not found.get("base_model_name_or_path"):
        raise ValueError(f"{file} names no base model; write it under base_model_name_or_path")
    return found


def require(settings: LoRA, device: str) -> None:
    """Refuse what cannot be trained here, before anything is loaded.

    Raises: ValueError without peft, and for 4 bits without a GPU or bitsandbytes.
    """
    peft()
    if settings.quantize is None:
        return
    _check(
        device.startswith("cuda"),
        f"adapter.quantize={settings.quantize} needs a GPU (device is {device}); set adapter.quantize=null",
    )
    _check(
        importlib.util.find_spec("bitsandbytes") is not None,
        f"adapter.quantize={settings.quantize} needs bitsandbytes: pip install 'strop[qlora]'",
    )


def peft() -> Any:
    """The library that the layers come from.

    Raises: ValueError with the command that installs it.
    """
    try:
        import peft as library
    except ImportError as error:
        raise ValueError(f"adapters need the library peft, which is not installed: {INSTALL}") from error
    return library


def attach(module: Any, settings: LoRA, seed: int, heads: Collection[str] = ()) -> None:
    """Put a fresh adapter into the module, in place, and freeze everything else.

    Args:
        seed: A is a function of it, on any device; the global generators are not touched.
        heads: submodules that are trained in full (a reward model's score), by name.
    Raises: ValueError if a target is no linear layer of the trunk, or the module has an adapter.
    """
    library = peft()
    _check(not layers_of(module), "the model has an adapter already; merge it first")
    targets = find_targets(module, settings.targets)
    kinds = {type(module.get_submodule(name)).__name__ for name in targets}
    config = library.LoraConfig(
        r=settings.r,
        lora_alpha=int(settings.alpha) if settings.alpha == int(settings.alpha) else settings.alpha,
        target_modules=_shortest(module, targets),
        lora_dropout=0.0,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        fan_in_fan_out=kinds == {"Conv1D"},
        task_type=_task(module),
    )
    inject(module, config, heads)
    generator = torch.Generator().manual_seed(seed ^ 0x10FA)  # not the stream that random weights are drawn from
    with torch.no_grad():
        for layer in layers_of(module).values():
            a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            bound = a.shape[1] ** -0.5
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
            b.zero_()


def inject(module: Any, config: Any, heads: Collection[str]) -> None:
    """Put in the layers that a peft config describes; they and the heads train, nothing else."""
    with torch.random.fork_rng(devices=[]):
        peft().inject_adapter_in_model(config, module, adapter_name=NAME)
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # steps are smaller than what 16 bits can add
    for name in heads:
        module.get_submodule(name).requires_grad_(True).float()


def layers_of(module: Any) -> dict[str, Any]:
    """The module's adapted layers by name; none where it has no adapter."""
    if "peft_config" not in vars(module):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLayer)}


def find_targets(module: Any, targets: Literal["all-linear"] | tuple[str, ...]) -> list[str]:
    """Names of the layers to adapt.

    Raises: ValueError for a name that fits no linear layer, or one that is read past its forward.
    """
    linear = {name: part for name, part in module.named_modules() if is_linear(part)}
    trunk = {id(part) for part in module.base_model.modules()}
    ends = [id(part) for part in (module.get_input_embeddings(), module.get_output_embeddings()) if part is not None]
    trunk -= set(ends)
    within = {name for name, part in linear.items() if id(part) in trunk}
    known = ", ".join(sorted({name.rpartition(".")[2] for name in within}))
    if targets == "all-linear":
        _check(bool(within), f"{type(module).__name__} has no linear layer to adapt")
        return sorted(within)
    found: set[str] = set()
    for target in targets:
        fitting = {name for name, _ in module.named_modules() if name == target or name.endswith(f".{target}")}
        _check(bool(fitting), f"targets: {target} is no layer of {type(module).__name__}; its linear layers: {known}")
        _check(
            not any(id(module.get_submodule(name)) in ends for name in fitting),
            f"targets: {target} is an embedding or output head; log-probs are computed from its weight directly, "
            f"past an adapter. Leave it out; linear layers: {known}",
        )
        _check(fitting <= within, f"targets: {target} is no linear layer of the trunk; those are: {known}")
        found |= fitting
    return sorted(found)


def is_linear(part: torch.nn.Module) -> bool:
    """Whether a layer is x W^T + b (transformers' Conv1D is, too), quantised or not."""
    return isinstance(part, torch.nn.Linear) or type(part).__name__ == "Conv1D"


@contextmanager
def disabled(module: Any) -> Iterator[None]:
    """Until the block ends the module computes what its base model does."""
    layers = layers_of(module).values()
    assert layers, "there is no adapter to switch off"
    assert not any(layer.disable_adapters for layer in layers), "the adapter is switched off already"
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@dataclass(frozen=True, slots=True)
class WithoutAdapter:
    """A policy's base model, to be asked as a model of its own: the policy with its adapter switched off."""

    policy: LanguageModel

    @property
    def module(self) -> Any:
        return self.policy.module

    @property
    def device(self) -> str:
        return self.policy.device

    @property
    def precision(self) -> torch.dtype:
        return self.policy.precision

    @property
    def precision_name(self) -> str:
        """The policy's, and what the frozen weights are where that is not fp32, since other bits come of it."""
        module = self.policy.module
        if getattr(module, "is_quantized", False):
            return f"{self.policy.precision_name}-nf4"
        return self.policy.precision_name + ("" if module.dtype == torch.float32 else "-weights")

    @property
    def path(self) -> Literal["packed", "padded"]:
        return self.policy.path

    @property
    def tail(self) -> torch.nn.Module | None:
        return self.policy.tail

    def autocasting(self) -> AbstractContextManager[None]:
        return self.policy.autocasting()

    def __call__(self, batch: Batch, *, temperature: float = 1.0, wants: Collection[str] = ()) -> Outputs:
        with disabled(self.policy.module):
            return self.policy(batch, temperature=temperature, wants=wants)


def base_tensors(module: Any) -> dict[str, torch.Tensor]:
    """The state of the base model under its own names, without the adapter's."""
    plain = {name: t for name, t in module.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): t for name, t in plain.items()}


@contextmanager
def shaken(module: Any) -> Iterator[None]:
    """Until the block ends a fresh adapter's B is random instead of 0, so that comparisons of paths see it.

    A module without an adapter, and one that has learned something, stay as they are.
    """
    fresh = [layer for layer in layers_of(module).values() if not layer.lora_B[NAME].weight.any()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in fresh:
            b = layer.lora_B[NAME].weight
            size = SHAKE / (layer.scaling[NAME] * b.shape[1] ** 0.5)
            b.copy_(torch.randn(b.shape, generator=generator) * size)
    try:
        yield
    finally:
        with torch.no_grad():
            for layer in fresh:
                layer.lora_B[NAME].weight.zero_()


def _shortest(module: Any, names: Collection[str]) -> list[str]:
    """The names' last parts where they stand for these layers and no others, else the names."""
    ends = {name.rpartition(".")[2] for name in names}
    meant = {name for name, _ in module.named_modules() if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == set(names) else names)


def _task(module: Any) -> str | None:
    """What peft calls the kind of model, by which it wraps the base."""
    kinds = {
        "ForCausalLM": "CAUSAL_LM",
        "LMHeadModel": "CAUSAL_LM",
        "ForSequenceClassification": "SEQ_CLS",
        "ForTokenClassification": "TOKEN_CLS",
    }
    return next((task for end, task in kinds.items() if type(module).__name__.endswith(end)), None)
