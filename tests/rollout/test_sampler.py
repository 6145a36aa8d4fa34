"""The sampler against plain forwards and `generate`, on tiny random models of each architecture."""

import pytest
import torch
import transformers as tf
from tests.rollout.conftest import CONFIGS, PROMPTS, SIZE, build, ids, run, worst_error


@pytest.fixture(scope="module")
def qwen3():
    return build("qwen3")


@pytest.mark.parametrize("path", ["shared", "padded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_agree_with_a_plain_forward(name, path):
    model = build(name)
    groups = run(model, path=path, temperature=0.8)
    assert worst_error(model, PROMPTS, groups, 0.8) < 1e-5
    assert {s.finish for group in groups for s in group} == {"stop", "length"}


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma3"])
def test_the_number_of_rows_and_the_path_change_nothing(name):
    model = build(name)
    whole = ids(run(model, max_new_tokens=40))
    for rows in (2, 4, 7):  # prompts wait, rows are refilled, columns are shifted
        groups = run(model, max_new_tokens=40, rows=rows)
        assert ids(groups) == whole
        assert worst_error(model, PROMPTS, groups) < 1e-5
    assert ids(run(model, max_new_tokens=40, path="padded", rows=4)) == whole


def test_columns_outgrow_their_buffer_and_move_back(qwen3):
    groups = run(qwen3, max_new_tokens=150, rows=4, stop_ids=frozenset({0}))
    assert max(len(s.ids) for group in groups for s in group) > 64
    assert worst_error(qwen3, PROMPTS, groups) < 1e-5


def test_a_prompts_samples_do_not_depend_on_its_batch_mates(qwen3):
    whole = ids(run(qwen3))
    for i, prompt in enumerate(PROMPTS):
        assert ids(run(qwen3, [prompt], first_index=3 * i)) == [whole[i]]
    assert ids(run(qwen3, step=3)) != whole and ids(run(qwen3, seed=3)) != whole


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_generates_greedy(name):
    model = build(name).eval()
    groups = run(model, num_samples=1, temperature=0, stop_ids=frozenset())
    for prompt, (s,) in zip(PROMPTS, groups, strict=True):
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert list(s.ids) == out[0, len(prompt) :].tolist()
    assert worst_error(model, PROMPTS, groups) < 1e-5


def test_a_stop_token_ends_a_row_and_is_kept(qwen3):
    stop = frozenset(range(0, 97, 8))
    for s in (s for group in run(qwen3, stop_ids=stop) for s in group):
        assert not stop & set(s.ids[:-1]) and len(s.ids) == len(s.logprobs)
        assert (s.finish == "stop") == (s.ids[-1] in stop)
        assert s.finish == "stop" or len(s.ids) == 20


def test_one_token_completions(qwen3):
    groups = run(qwen3, max_new_tokens=1)
    assert all(len(s.ids) == 1 for group in groups for s in group)
    assert worst_error(qwen3, PROMPTS, groups) < 1e-5


@pytest.mark.parametrize("path", ["shared", "padded"])
def test_stop_strings_are_found_across_tokens(qwen3, path):
    def decode(tokens):
        return "".join("" if i % 10 == 9 else "ab"[i % 2] for i in tokens)  # some tokens have no text

    free = run(qwen3, max_new_tokens=120, stop_ids=frozenset())
    stopped = run(
        qwen3, max_new_tokens=120, stop_ids=frozenset(), stop_strings=["abba", "bbbb"], decode=decode, path=path
    )
    for full, s in zip(sum(free, []), sum(stopped, []), strict=True):
        ends = (n for n in range(1, 121) if any(stop in decode(full.ids[:n]) for stop in ("abba", "bbbb")))
        assert s.ids == full.ids[: next(ends, 120)]
    assert "stop" in {s.finish for group in stopped for s in group}


def test_a_late_stop_string_is_found_after_the_tail_has_moved_on(qwen3):
    (whole,) = run(qwen3, [[5]], num_samples=1, max_new_tokens=150, stop_ids=frozenset())
    word = "".join(f"<{i}>" for i in whole[0].ids[140:143])
    lengths = []

    def decode(tokens):
        lengths.append(len(tokens))
        return "".join(f"<{i}>" for i in tokens)

    settings = {
        "num_samples": 1,
        "max_new_tokens": 150,
        "stop_ids": frozenset(),
        "stop_strings": [word],
        "decode": decode,
    }
    (stopped,) = run(qwen3, [[5]], **settings)
    assert stopped[0].ids == whole[0].ids[:143] and stopped[0].finish == "stop"
    assert sorted(lengths)[-2] < 40  # only the check of the hit reads the whole completion


def test_top_k_of_one_is_greedy_with_the_logprobs_of_the_whole_distribution(qwen3):
    greedy = run(qwen3, temperature=0)
    assert ids(run(qwen3, top_k=1)) == ids(greedy)
    assert ids(run(qwen3, top_p=1e-6)) == ids(greedy)
    assert worst_error(qwen3, PROMPTS, run(qwen3, top_k=5, top_p=0.9)) < 1e-5


def test_bf16_models_give_fp32_logprobs():
    model = build("qwen3", torch.bfloat16)
    groups = run(model)
    assert worst_error(model, PROMPTS, groups) < 0.1
    assert any(torch.tensor(s.logprobs).bfloat16().float().tolist() != list(s.logprobs) for s in groups[0])


def test_the_model_and_the_global_generator_are_left_as_they_were(qwen3):
    qwen3.train()
    qwen3.model.layers[0].eval()
    modes = [m.training for m in qwen3.modules()]
    before, state = qwen3.config._attn_implementation, torch.get_rng_state()
    run(qwen3)
    with pytest.raises(ValueError, match="stop here"):
        run(qwen3, stop_strings=["x"], decode=refuse)
    assert [m.training for m in qwen3.modules()] == modes
    assert qwen3.config._attn_implementation == before
    assert torch.equal(torch.get_rng_state(), state)
    loss = qwen3(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()  # nothing that inference left behind refuses autograd
    qwen3.zero_grad()


def refuse(tokens):
    raise ValueError("stop here")


def test_models_without_the_attention_interface_are_sampled_on_the_padded_path(caplog):
    torch.manual_seed(0)
    model = tf.BloomForCausalLM(tf.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(ValueError, match="path='padded'"):
        run(model)
    groups = run(model, path="padded")
    assert "slower" in caplog.text
    assert worst_error(model, PROMPTS, groups) < 1e-5


def test_attention_with_a_soft_cap_is_refused():
    torch.manual_seed(0)
    model = tf.Gemma2ForCausalLM(tf.Gemma2Config(**SIZE, head_dim=8))
    with pytest.raises(ValueError, match="soft cap"):
        run(model)
    assert worst_error(model, PROMPTS, run(model, path="padded")) < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": [[1], []]}, r"prompts\[1\] is empty"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"stop_strings": ["x"]}, "needs decode"),
        ({"stop_strings": [""], "decode": str}, "empty text"),
    ],
)
def test_bad_settings_are_refused(qwen3, changes, message):
    with pytest.raises(ValueError, match=message):
        run(qwen3, **changes)


def test_no_prompts_give_no_samples(qwen3):
    assert run(qwen3, []) == []
