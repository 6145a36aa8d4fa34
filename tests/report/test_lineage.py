from strop.report.lineage import lineage
from strop.report.records import Figure, Run, StageRun


def stage(name, model, kind="sft", **metrics):
    artifacts = {} if kind == "evaluate" else {"model": f"stages/{name}/model"}
    return StageRun(name, kind, inputs={"model": model}, artifacts=artifacts, metrics=metrics, hash=f"stage {name}")


def test_models_stand_after_their_parent_whatever_way_it_is_named():
    stages = (
        stage("a", "hub/base"),
        stage("b", "@a"),
        stage("c", "stages/a/model"),
        stage("d", "/runs/x/stages/c/model"),
    )
    nodes = lineage(Run("r", folder="/runs/x", stages=stages))
    assert [(n.name, n.parent, n.kind) for n in nodes] == [
        ("hub/base", "", "base"),
        ("a", "hub/base", "sft"),
        ("b", "a", "sft"),
        ("c", "a", "sft"),
        ("d", "c", "sft"),
    ]


def test_the_model_hash_is_shown_before_the_stage_hash():
    lines = ({"name": "hub/base", "kind": "base", "hash": "base hash"}, {"name": "a", "hash": "model hash"})
    nodes = lineage(Run("r", stages=(stage("a", "hub/base"), stage("b", "@a")), lineage=lines))
    assert [n.hash for n in nodes] == ["base hash", "model hash", "stage b"]


def test_evaluations_hang_on_the_model_they_measured():
    figure = Figure(0.5, 0.4, 0.6, 9)
    stages = (
        stage("e0", "hub/base", "evaluate", reward=figure),
        stage("a", "hub/base"),
        stage("e1", "@a", "evaluate", length=figure),
    )
    base, trained = lineage(Run("r", stages=stages))
    assert base.figures == (("e0", "reward", figure),) and trained.figures == ()


def test_a_stage_known_by_its_samples_alone_is_no_model():
    run = Run("r", stages=(StageRun("sft"), StageRun("eval")), curves={"sft": {"loss": ((0, 1.0),)}})
    assert [n.name for n in lineage(run)] == ["sft"]


def test_another_runs_stage_of_the_same_name_is_a_base():
    stages = (stage("sft", "hub/base"), stage("rm", "/runs/other/stages/sft/model"))
    nodes = lineage(Run("r", folder="/runs/x", stages=stages))
    assert [(n.name, n.parent) for n in nodes][-1] == ("rm", "/runs/other/stages/sft/model")
