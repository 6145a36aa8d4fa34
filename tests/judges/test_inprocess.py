"""Judges that are models: in this process, and the same weights behind a server that this file starts."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from strop.data.chat import Chat
from strop.judges import Compare, Function, InProcess, Item, Listed, Pair, Rank, Rate, Reply, Request
from strop.judges.local import opened
from strop.judges.verdict import verdict_line
from strop.model.load import load, load_tokenizer
from strop.rollout.sampler import sample
from strop.types import Message
from strop.world.model import write_base

PAIRS = [
    Pair(prompt="What is 2 + 2?", first="4", second="It is five, I think."),
    Pair(prompt="What is 2 + 2?", first="It is five, I think.", second="4"),
    Pair(prompt="What is 3 + 2?", first="5 <|im_end|>", second="6"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded world's model with random weights: its judgements mean nothing and are exact numbers."""
    folder = tmp_path_factory.mktemp("judge")
    write_base(folder, 0)
    return str(folder)


def plain(folder: str) -> Any:
    """The model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_option_probabilities_are_the_models_own(base: str) -> None:
    """Against a plain forward over prompt + line, teacher-forced, for each option."""
    request = Request(
        task="compare",
        messages=(Message("user", "A or B?"),),
        options=("A", "B"),
        nonce="c0de",
        begin='{"nonce": "c0de", "better": "',
        end='"}',
    )
    (reply,) = InProcess(path=base)([request])
    judge = opened(base, "cpu")
    prompt = judge.chat.encode_prompt(request.messages)
    sums = []
    for option in request.options:
        line = judge.chat.encode_texts([request.begin + option + request.end])[0]
        ids = torch.tensor([[*prompt, *line]])
        with torch.no_grad():
            logs = plain(base)(ids).logits[0].float().log_softmax(-1)
        at = range(len(prompt), ids.shape[1])
        sums.append(math.fsum(float(logs[i - 1, ids[0, i]]) for i in at))
    expected = torch.tensor(sums, dtype=torch.float64).log_softmax(0)
    assert [reply.option_logprobs[o] for o in request.options] == pytest.approx(expected.tolist(), abs=1e-4)
    best = max(reply.option_logprobs, key=lambda o: reply.option_logprobs[o])
    assert reply.text == verdict_line("c0de", "better", best)


def test_swapping_gives_one_minus_p_and_batches_make_no_difference(base: str) -> None:
    judge = Compare(backend=InProcess(path=base), tie_margin=0.0)
    together = judge(PAIRS)
    alone = [judge([pair])[0] for pair in PAIRS]
    for one, other in zip(together, alone, strict=True):
        assert one.forward == pytest.approx(other.forward, abs=1e-5)
        assert one.backward == pytest.approx(other.backward, abs=1e-5)
    a, b = together[:2]
    assert a.forward == pytest.approx(1 - (b.backward or 0), abs=1e-5)
    assert a.backward == pytest.approx(1 - (b.forward or 0), abs=1e-5)


def test_thinking_critiques_ratings_and_lists(base: str) -> None:
    backend = InProcess(path=base, rows=2)
    for found in Compare(backend=backend, think=True, max_tokens=8)(PAIRS):
        assert found.probability is not None
    for rating in Rate(backend=backend)([Item(prompt="q", response="r"), Item(prompt="q", response="s")]):
        assert rating.rating is not None and 1 < rating.rating < 10
    (ranking,) = Rank(backend=backend, max_tokens=8)([Listed(prompt="q", responses=("a", "b"))])
    assert ranking.scores is None, "random weights write no list"
    critique = Request(task="critique", messages=(Message("user", "Critique: 4"),), max_tokens=6)
    first, second = backend([critique, critique])
    assert first == second and isinstance(first.text, str)


def test_a_draw_is_a_function_of_the_seed(base: str) -> None:
    def drawn(seed: int) -> Any:
        request = Request(task="revise", messages=(Message("user", "go"),), max_tokens=12, temperature=1.0, seed=seed)
        return InProcess(path=base)([request])[0].text

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_prompt_that_is_too_long_is_an_abstention(base: str) -> None:
    judge = opened(base, "cpu")
    text = " ".join(map(str, range(judge.positions)))
    short, long = InProcess(path=base)(
        [Request(task="critique", messages=(Message("user", t),), max_tokens=4) for t in ("2 + 2", text)]
    )
    assert short.text is not None and long.text is None and "too long for the judge" in long.reason


def test_a_missing_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot load"):
        InProcess(path=str(tmp_path)).check()
    with pytest.raises(ValueError, match="model.path is empty"):
        InProcess(path="")


# The same kind of model, served.


def served(web: ModuleType, folder: str) -> Any:
    """Chat completions of the world's model with log-probabilities, by our own sampler.

    The random weights would never write a verdict, so the server writes its line (as structured output does)
    and draws the letter from the model.
    """
    model, chat = plain(folder), Chat(load_tokenizer(folder))

    def script(n: int, body: dict[str, Any]) -> Any:
        turns = tuple(Message(m["role"], m["content"]) for m in body["messages"])
        nonce, key = web.nonce_of(body)
        begin = f'{{"nonce": "{nonce}", "{key}": "'
        ids = chat.encode_prompt(turns) + chat.encode_texts([begin])[0]
        letters = [chat.encode_texts([letter])[0][0] for letter in "AB"]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        options = {letter: float(logs[i]) for letter, i in zip("AB", letters, strict=True)}
        return web.verdict_with(body, max(options, key=lambda o: options[o]), options)

    return script


def test_a_served_model_judges_as_its_probabilities_say(web: ModuleType, endpoint: Any, base: str) -> None:
    script = served(web, base)
    with web.JudgeServer(script) as server:
        judge = Compare(backend=endpoint(server.url, concurrency=1), tie_margin=0.0)
        found = judge(PAIRS)
        assert server.hits == 4, "the swapped pair asks the same two questions"
        assert judge(PAIRS) == found and server.hits == 4
    a, b, _ = found
    assert a.forward == pytest.approx(1 - (b.backward or 0)) and a.probability == pytest.approx(
        1 - (b.probability or 0)
    )
    assert all(one.forward is not None and 0 < one.forward < 1 for one in found)


def test_the_sampler_writes_replies_over_http(web: ModuleType, endpoint: Any, base: str) -> None:
    """Free text, greedily: what the model in this process says itself."""
    model, chat = load(base, say=lambda text: None), Chat(load_tokenizer(base))

    def script(n: int, body: dict[str, Any]) -> Any:
        ids = chat.encode_prompt((Message("user", web.prompt_of(body)),))
        drawn = sample(
            model.module, [ids], num_samples=1, max_new_tokens=body["max_tokens"], temperature=body["temperature"],
            seed=0, step=0, stop_ids=chat.stop_ids,
        )  # fmt: skip
        return web.completion(chat.decode(drawn[0][0].ids) + ".")

    request = Request(task="critique", messages=(Message("user", "Say more about it."),), max_tokens=10)
    with web.JudgeServer(script) as server:
        assert endpoint(server.url)([request])[0].text == f"{InProcess(path=base)([request])[0].text}."


def test_settings_and_functions_bring_neither_torch_nor_the_http_library() -> None:
    import subprocess

    code = (
        "import sys, strop.rewards, strop.judges as j\n"
        "j.Endpoint(url='http://x/v1', model='m'); j.InProcess(path='x'); j.Function(function='a.py:f')\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'httpx2', 'httpx', 'tenacity', 'transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done


def test_a_reply_of_a_function_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(task, inputs):\n    return task + ' ' + inputs['critique']\n")
    request = Request(task="revise", messages=(), inputs={"critique": "too long"})
    assert Function(function=f"{tmp_path}/m.py:f")([request]) == [Reply(text="revise too long")]
