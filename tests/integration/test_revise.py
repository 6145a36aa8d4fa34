"""The revise stage, and both feedback recipes over a model that was never trained, by a function and over HTTP."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import strop
from strop.data.formats import load_dataset
from strop.world.critic import reply

CRITIC = {"name": "function", "function": "strop.world.critic:reply"}
REWRITER = '''
def rewrite(task, inputs):
    """Notes every question; writes what the principle says behind the answer."""
    with open(__file__ + ".asked", "a") as file:
        file.write(repr((task, inputs["responses"], inputs["principle"])) + "\\n")
    if task == "compare":
        first, second = map(len, inputs["responses"])
        return "tie" if first == second else "A" if first > second else "B"
    if task == "critique":
        return "A long criticism, of which no word may ever be trained on: " + inputs["principle"]
    if "2" in inputs["prompt"]:
        return inputs["responses"][0]
    return "I cannot say." if "Sort" in inputs["prompt"] else inputs["responses"][0] + " " + inputs["principle"][-9:]

def silent(task, inputs):
    raise RuntimeError("out of order")
'''


def sample(tiny: Any, **changes: Any) -> dict[str, Any]:
    small = {"num_samples": 2, "sampling": {"max_completion_length": 10}}
    return {"kind": "sample", "name": "sample", "data": {"path": tiny.data("prompts"), "limit": 12}, **small, **changes}


def revise(critic: Any, **changes: Any) -> dict[str, Any]:
    stage = {"kind": "revise", "name": "revise", "data": "@sample", "critic": critic, "constitution": "assistant"}
    return {**stage, "save_every": 5, **changes}


def recipe(tiny: Any, runs: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = tiny.recipe(runs, *stages)
    for stage in made["stages"]:
        if stage["kind"] == "revise" and stage["critic"] is not None:
            del stage["model"]
    return made


def run(tiny: Any, runs: Path, *stages: dict[str, Any]) -> Path:
    path: Path = strop.run(recipe(tiny, runs, *stages), display="quiet").path
    return path


def rewriter(folder: Path, name: str = "rewrite") -> dict[str, Any]:
    (folder / "critic.py").write_text(REWRITER)
    return {"name": "function", "function": f"{folder}/critic.py:{name}"}


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"stages/revise/{name}.jsonl").read_text().splitlines()]


def test_every_depth_is_kept_and_none_of_the_criticism(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    sft = {**tiny.sft(steps=2), "data": "@revise"}
    path = run(tiny, tmp_path, sample(tiny), revise(rewriter(tmp_path), depth=3, keep=2), sft)
    whole, chosen = lines(path, "revisions"), lines(path, "samples")
    assert len(whole) == 12 and chosen == lines(path, "depth-2") != lines(path, "depth-3")
    chains = [chain for row in whole for chain in row["row"]["revisions"]]
    assert len(chains) == 24 and all(len({r["principle"] for r in chain}) == 3 == len(chain) for chain in chains)
    trained = [(path / f"stages/revise/{name}.jsonl").read_text() for name in ("samples", "depth-1", "depth-3")]
    assert not any("criticism" in text or "revisions" in text for text in trained)
    (told,) = (s for s in small_runs.summary(path)["stages"] if s["name"] == "revise")
    lost = told["data"]["dropped"]
    assert lost["revisions that are the original"] > 0 and len(chosen) + sum(lost.values()) == 24
    assert told["metrics"]["depth_1/kept"]["value"] == pytest.approx(len(lines(path, "depth-1")) / 24)
    assert told["metrics"]["depth_3/words"]["value"] > told["metrics"]["depth_1/words"]["value"]
    last = next(s for s in small_runs.summary(path)["stages"] if s["name"] == "sft")
    assert last["data"]["kept"] == len(chosen)


@pytest.mark.parametrize(("refusals", "lost"), [("keep", 0), ("drop_benign", 1), ("drop", 2)])
def test_refusals_of_harmless_prompts_are_dropped(refusals: str, lost: int, tiny: Any, tmp_path: Path) -> None:
    asked = [{"prompt": f"Sort {word}.", "completion": "No.", "benign": word == "a"} for word in "ab"]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked) + json.dumps(
        {"prompt": "Say hi.", "completion": "Hi."}) + "\n")  # fmt: skip
    stage = revise(rewriter(tmp_path), data=str(tmp_path / "asked.jsonl"), refusals=refusals)
    assert len(lines(run(tiny, tmp_path / "runs", stage), "samples")) == 3 - lost


def test_a_critic_that_is_silent_is_an_error(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revise.critic: it left 10 of 10 answers without a revision: .*out of order"):
        run(tiny, tmp_path, sample(tiny), revise(rewriter(tmp_path, "silent")))


def test_the_model_is_its_own_critic(tiny: Any, tmp_path: Path) -> None:
    """An untrained one, so it says nothing of sense; but it is asked, and its words are taken down."""
    few = sample(tiny, data={"path": tiny.data("prompts"), "limit": 3})
    path = run(tiny, tmp_path, few, revise(None, max_tokens=8, critique=False))
    records = [r for row in lines(path, "revisions") for chain in row["row"]["revisions"] for r in chain]
    assert len(records) == 6 and any("text" in record for record in records)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    stages = (sample(tiny), revise(rewriter(tmp_path), depth=2))
    whole = run(tiny, tmp_path / "whole", *stages)
    broken, child = recipe(tiny, tmp_path / "broken", *stages), small_runs.Child()
    assert child(broken, at=["step", "revise", 1], signal=int(signal.SIGKILL)) == -signal.SIGKILL
    again = small_runs.only_run(tmp_path / "broken")
    strop.run(again, display="quiet")
    for name in ("revisions", "samples", "depth-1", "depth-2"):
        file = f"stages/revise/{name}.jsonl"
        assert (again / file).read_bytes() == (whole / file).read_bytes()


def test_settings_that_cannot_be(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep.*must be at most revise.depth=1, got 2"):
        run(tiny, tmp_path, sample(tiny), revise(CRITIC, keep=2))
    with pytest.raises(ValueError, match="nothing asks it: the critic criticises and revises"):
        strop.run(tiny.recipe(tmp_path, sample(tiny), revise(CRITIC)), display="quiet")
    with pytest.raises(ValueError, match=r"asistant: no such constitution or file; did you mean assistant\?"):
        run(tiny, tmp_path, sample(tiny), revise(CRITIC, constitution="asistant"))


# The same over HTTP, and the recipes.


@pytest.fixture(scope="module")
def server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge_server", Path(__file__).parents[1] / "judges/server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def critic_behind(server: ModuleType) -> Any:
    """The world's critic as a model that reads words: it finds the answer, the principle and the criticism in them."""

    def script(number: int, body: dict[str, Any]) -> Any:
        turns = [turn["content"] for turn in body["messages"]]
        if server.nonce_of(body)[0]:
            shown = [text.replace("‹", "<").replace("›", ">") for text in server.responses_of(body)]
            word = reply("compare", {"responses": shown, "principle": turns[-1].split("material")[0]})
            return server.verdict(body, word)
        answer, principle = turns[1], turns[-1].split("Be brief")[0].split("Reply with")[0]
        if len(turns) == 3 and "Criticise your last answer" in turns[2]:
            return server.completion(reply("critique", {"responses": [answer], "principle": principle}))
        return server.completion(reply("revise", {"responses": [answer], "principle": principle, "critique": turns[3]}))

    return server.JudgeServer(script)


def changes(tiny: Any, runs: Path, backend: dict[str, Any]) -> dict[str, Any]:
    """Both recipes made small, on given answers of the world's manners in place of an untrained model's."""
    training = {"steps": 2, "max_length": 128, "batch_size": 4, "micro_batch_tokens": 256}
    return {
        "model": tiny.path("base"),
        "runs": str(runs),
        "threads": 1,
        "device": "cpu",
        "sample.data": {"path": tiny.data("prompts"), "limit": 8},
        "sample.sampling.max_completion_length": 8,
        "label.labeller.compare.backend": backend,
        "label.data": tiny.data("pairs"),
        "label.ties": "keep",
        "training": training,
    }


def http(listening: Any, folder: Path) -> dict[str, Any]:
    return {"name": "http", "url": listening.url, "model": "critic", "cache": str(folder / "cache.jsonl")}


@pytest.mark.parametrize("over", ["function", "http"])
def test_the_recipe_of_constitutional_ai_runs(
    over: str, tiny: Any, small_runs: Any, tmp_path: Path, server: ModuleType
) -> None:
    with critic_behind(server) as listening:
        backend = CRITIC if over == "function" else http(listening, tmp_path)
        settings = changes(tiny, tmp_path / "runs", backend)
        training = settings.pop("training")
        more = {
            "revise.data": {"path": tiny.data("sft"), "limit": 24},
            "revise.constitution": "world",
            "revise.critic": backend,
            "sft.training": training,
            "answers.data": settings["sample.data"],
            "answers.sampling.max_completion_length": 8,
            "label.labeller.constitution": "world",
            "dpo.training": training,
        }
        path = strop.run("constitutional", {**settings, **more}, display="quiet").path
        if over == "http":
            hits = len(listening.seen)
            assert hits > 50
            again = strop.run("constitutional", {**settings, **more, "seed": 0}, display="quiet").path
            assert len(listening.seen) == hits, "what was answered once is not asked again"
            for name in ("revise", "label"):
                file = f"stages/{name}/samples.jsonl"
                assert (again / file).read_bytes() == (path / file).read_bytes()
    revised = load_dataset(str(path / "stages/revise/samples.jsonl")).groups
    assert revised and all(g.completions[0].text.endswith("Happy to help!") for g in revised)
    labels = [g.row["probability"] for g in load_dataset(str(path / "stages/label/samples.jsonl")).groups]
    assert set(labels) == {0.5, 1.0}


def test_the_recipe_of_rlaif_runs(tiny: Any, small_runs: Any, tmp_path: Path) -> None:
    settings = changes(tiny, tmp_path, CRITIC)
    training = settings.pop("training")
    more = {
        "reward.training": {**training, "eval_fraction": 0.2},
        "ppo.data": tiny.data("prompts"),
        "ppo.sampling.max_completion_length": 8,
        "ppo.training": training,
    }
    path = strop.run("rlaif", {**settings, **more}, display="quiet").path
    (told,) = (s for s in small_runs.summary(path)["stages"] if s["name"] == "label")
    assert told["metrics"]["agreement/accuracy"]["value"] == 1.0, "the critic goes by the gold style, as the pairs do"
