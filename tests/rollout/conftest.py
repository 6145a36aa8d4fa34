"""Tiny random models of each architecture, and how they are sampled and compared."""

import torch
import transformers as tf

from strop.rollout.sampler import sample

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SLIDING = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**SIZE),
    "qwen2": lambda: tf.Qwen2Config(**SIZE),
    "qwen3": lambda: tf.Qwen3Config(**SIZE, head_dim=16),
    "mistral": lambda: tf.MistralConfig(**SIZE, head_dim=8, sliding_window=6),
    "gemma": lambda: tf.GemmaConfig(**SIZE, head_dim=8),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **SIZE, head_dim=16, sliding_window=5, layer_types=SLIDING, query_pre_attn_scalar=16
    ),
}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [17], [18, 19, 20, 21, 22], [23, 24, 25, 26, 27]]


def build(name, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    config = CONFIGS[name]()
    model = tf.AutoModelForCausalLM.from_config(type(config)(**{**config.to_dict(), **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)  # sharp enough that attention matters
    return model.to(dtype)


def run(model, prompts=PROMPTS, **changes):
    settings = {
        "num_samples": 3,
        "max_new_tokens": 20,
        "temperature": 1.0,
        "seed": 1,
        "step": 2,
        "stop_ids": frozenset(range(6)),
    }
    return sample(model, prompts, **{**settings, **changes})


def ids(groups):
    return [[s.ids for s in group] for group in groups]


def worst_error(model, prompts, groups, temperature=1.0):
    """Largest difference to the log-probs of one plain forward a sequence."""
    errors = []
    for prompt, group in zip(prompts, groups, strict=True):
        for s in group:
            with torch.no_grad():
                logits = model.eval()(input_ids=torch.tensor([[*prompt, *s.ids]])).logits[0].float()
            reference = (logits[len(prompt) - 1 : -1] / temperature).log_softmax(-1)
            reference = reference.gather(-1, torch.tensor(s.ids)[:, None])[:, 0]
            errors.append(float((reference - torch.tensor(s.logprobs)).abs().max()))
    return max(errors)
