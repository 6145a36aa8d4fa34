"""Licences as folders, caches and runs state them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.recipes.licences import KNOWN, Licence, front_matter, licence_files, of_data, of_model

ROOT = Path(__file__).parents[2]
APACHE = (ROOT / "LICENSE").read_text("utf-8")
MIT = "MIT License\n\nCopyright (c) 2021 OpenAI\n\nPermission is hereby granted, free of charge, to any person"


def model(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("license: mit", "mit"),
        ("license: [mit, apache-2.0]", "mit, apache-2.0"),
        ("license: other\nlicense_name: my-own", "my-own"),
        ("license: other", "other"),
        ("tags: [a]", None),
        ("license: [", None),
    ],
)
def test_front_matter(head: str, licence: str | None, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", README_md=f"---\n{head}\n---\n# Text\nlicense: gpl\n")
    assert of_model(str(folder)).licence == licence


def test_a_licence_file(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", LICENSE=APACHE)
    assert of_model(str(folder)) == Licence("apache-2.0", str(folder / "LICENSE"))
    (folder / "README.md").write_text("---\nlicense: llama3.1\n---\n")
    assert of_model(str(folder)).licence == "llama3.1", "what the card says goes first"
    odd = model(tmp_path / "odd", LICENSE="All rights reserved.")
    assert of_model(str(odd)) == Licence()


def test_data_beside_or_below_their_licence(tmp_path: Path) -> None:
    (tmp_path / "set/data").mkdir(parents=True)
    file = tmp_path / "set/data/train.jsonl"
    file.write_text("{}\n")
    assert of_data(str(file)) == Licence()
    (tmp_path / "set/LICENSE").write_text(MIT)
    assert of_data(str(file)) == Licence("mit", str(tmp_path / "set/LICENSE"))
    (tmp_path / "set/data/README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert of_data(str(file)).licence == of_data(str(file.parent)).licence == "cc-by-4.0"


def test_a_models_folder_does_not_take_what_stands_above(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (tmp_path / "LICENSE").write_text(MIT)
    assert of_model(str(folder)) == Licence()


def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--Qwen--Qwen3-0.6B/snapshots/abc"
    kept.mkdir(parents=True)
    (kept / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert of_model("Qwen/Qwen3-0.6B").licence == "apache-2.0"
    assert of_data("Qwen/Qwen3-0.6B") == of_model("Other/model") == of_model("a/b/../c") == Licence()


def test_an_adapter_and_its_base(tmp_path: Path) -> None:
    base = model(tmp_path / "base", README_md="---\nlicense: gemma\n---\n")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert of_model(str(adapter)).licence == "gemma"


def test_a_model_of_a_run_has_the_licence_of_what_the_run_began_with(tmp_path: Path) -> None:
    run = tmp_path / "runs/it"
    left = model(run / "stages/sft/model")
    assert of_model(str(left)) == Licence()
    lineage = [{"name": "base/model", "kind": "base"}, {"name": "sft", "kind": "sft"}]
    known = {"base/model": {"licence": "mit", "source": "x"}, "data.jsonl": {"licence": "cc-by-4.0"}}
    (run / "summary.json").write_text(json.dumps({"lineage": lineage, "licences": known}))
    assert of_model(str(left)) == Licence("mit", str(run / "summary.json"))
    (run / "summary.json").write_text("[]")
    assert of_model(str(left)) == Licence()


def test_what_the_package_makes_is_its_own() -> None:
    assert of_model("world:base").licence == of_data("world:sft").licence == "apache-2.0"
    assert of_data("gym:leg_counting").licence is None


def test_files_that_go_along(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", LICENSE=APACHE, NOTICE="x", USE_POLICY_md="y", notes_txt="z")
    (folder / "USE_POLICY.md").write_text("y")
    assert {file.name for file in licence_files(folder)} >= {"LICENSE", "NOTICE", "USE_POLICY.md"}
    assert "notes.txt" not in {file.name for file in licence_files(folder)}
    assert licence_files(tmp_path / "nowhere") == [] and front_matter(tmp_path / "nowhere") == {}


def test_a_runs_summary_has_them(stages: Any, recipe: dict[str, Any]) -> None:
    base = Path(recipe["model"])
    (base / "LICENSE").write_text(MIT)
    result = strop.run(recipe, display="quiet")
    said = json.loads((result.path / "summary.json").read_text())["licences"]
    assert said[str(base)] == {"licence": "mit", "source": str(base / "LICENSE")}
    data = [stage["data"] for stage in recipe["stages"]]
    assert set(said) == {str(base), *data} and said[data[0]] == {"licence": None, "source": None}


def test_narrower_licences_come_before_wider_ones() -> None:
    names = [name for _, name in KNOWN]
    for narrow, wide in (("cc-by-nc-sa-4.0", "cc-by-4.0"), ("agpl-3.0", "gpl-3.0"), ("bsd-3-clause", "bsd-2-clause")):
        assert names.index(narrow) < names.index(wide)
