"""Which model of a run ships, and why none does: runs in every state."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest

from strop.recipes.shipping.left import read_left, subject_of


def test_the_last_model_that_writes(made_up: Any) -> None:
    made_up.write(made_up.sft(), made_up.sft("second", model="@sft"), {**made_up.sft("rm", model="@second")})
    made_up.trained("sft", str(made_up.folder / "base"))
    second = made_up.trained("second", "@sft")
    made_up.trained("rm", "@second", architectures=["Qwen3ForSequenceClassification"])
    left = read_left(made_up.run)
    assert (subject_of(left, None).stage, subject_of(left, None).hash) == ("second", second)
    assert subject_of(left, "sft").stage == "sft"
    assert left.ancestors("rm") == ["rm", "second", "sft"]
    assert left.start_of("rm") == str(made_up.folder / "base")


def test_a_model_that_only_scores_is_refused(made_up: Any) -> None:
    made_up.write(made_up.sft("rm"))
    made_up.trained("rm", str(made_up.folder / "base"), architectures=["Qwen3ForSequenceClassification"])
    left = read_left(made_up.run)
    for stage in (None, "rm"):
        with pytest.raises(ValueError, match="Qwen3ForSequenceClassification.* scores answers and writes none"):
            subject_of(left, stage)


def test_a_run_that_is_not_at_its_end_must_be_told_the_stage(made_up: Any) -> None:
    made_up.write(made_up.sft(), made_up.sft("second", model="@sft"), state="interrupted")
    made_up.trained("sft", str(made_up.folder / "base"))
    made_up.entry("second", "sft", state="interrupted")
    left = read_left(made_up.run)
    words = f"the run is interrupted, and second not finished; go on with `strop run {made_up.run}`"
    with pytest.raises(ValueError, match=re.escape(words) + ".*--stage sft"):
        subject_of(left, None)
    assert subject_of(left, "sft").stage == "sft"
    with pytest.raises(ValueError, match="stage second left no model; those that did: sft"):
        subject_of(left, "second")


def test_an_evaluation_that_failed_does_not_hold_the_model_back(made_up: Any) -> None:
    made_up.write(made_up.sft(), made_up.evaluation("eval", "@sft"), state="failed")
    made_up.trained("sft", str(made_up.folder / "base"))
    made_up.entry("eval", "evaluate", state="failed")
    assert subject_of(read_left(made_up.run), None).stage == "sft"


def test_skipped_stages_are_done(made_up: Any) -> None:
    """They have no folder: the stage that ended the rounds names them."""
    made_up.write(made_up.sft(), made_up.evaluation("peak", "@sft"), made_up.sft("second", model="@sft"))
    made_up.trained("sft", str(made_up.folder / "base"))
    made_up.entry("peak", "best", skips=["second"])
    assert subject_of(read_left(made_up.run), None).stage == "sft"
    made_up.entry("peak", "best", skips=[])
    with pytest.raises(ValueError, match="second not finished"):
        subject_of(read_left(made_up.run), None)


def test_nothing_was_left(made_up: Any) -> None:
    made_up.write(made_up.evaluation("eval", str(made_up.folder / "base")))
    with pytest.raises(ValueError, match="no stage has left a model yet"):
        subject_of(read_left(made_up.run), None)
    with pytest.raises(ValueError, match="no run directory"):
        read_left(made_up.folder)


def test_a_changed_model_is_refused(made_up: Any) -> None:
    made_up.whole([0.0], [1.0])
    (made_up.run / "stages/sft/model/model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="the files are not those that stage sft left"):
        subject_of(read_left(made_up.run), None)


def test_only_an_adapter(made_up: Any) -> None:
    made_up.write(made_up.sft())
    made_up.trained("sft", str(made_up.folder / "base"))
    adapter = made_up.run / "stages/sft/adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(made_up.folder / "base"), "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    file = made_up.run / "stages/sft/stage.json"
    entry = json.loads(file.read_text())
    entry["artifacts"]["adapter"] = "stages/sft/adapter"
    file.write_text(json.dumps(entry))
    both = subject_of(read_left(made_up.run), None)
    assert both.whole and both.adapter == adapter
    shutil.rmtree(made_up.run / "stages/sft/model")
    alone = subject_of(read_left(made_up.run), None)
    assert not alone.whole and alone.model == alone.adapter == adapter
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "task_type": "SEQ_CLS"}))
    with pytest.raises(ValueError, match="writes none"):
        subject_of(read_left(made_up.run), None)


def test_paths_of_a_run(made_up: Any) -> None:
    made_up.whole([0.0], [1.0])
    left = read_left(made_up.run)
    assert left.path_of("@eval-sft", "samples") == str(made_up.run / "stages/eval-sft/samples.jsonl")
    assert left.path_of("a-hub/model") == "a-hub/model"
    with pytest.raises(ValueError, match="stage eval-sft of .* left no model"):
        left.path_of("@eval-sft")
    with pytest.raises(ValueError, match="stage other of .* is not finished"):
        left.path_of("@other")
