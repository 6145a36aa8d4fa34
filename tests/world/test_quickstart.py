"""The built-in recipe and the world agree: what it names exists, and the rows are enough."""

from strop.recipes.config import load_recipe
from strop.rewards.custom import load_function
from strop.world import SIZES


def test_data_and_rewards_of_the_quickstart_exist_and_suffice():
    recipe = load_recipe("quickstart")
    assert recipe.model == "world:base"
    assert [s.name for s in recipe.stages] == ["sft", "eval-sft", "dpo", "eval-dpo", "grpo", "eval-grpo"]
    for stage in recipe.stages:
        rows = SIZES[stage.data.path.removeprefix("world:")]
        if stage.kind == "evaluate":
            assert stage.data.path == "world:test"
            assert stage.data.limit == 200 <= rows
        for reward in getattr(stage, "rewards", ()):
            assert load_function(reward.function).__name__ == reward.label
    sft, grpo = recipe.stages[0], recipe.stages[4]
    # One pass in the file's order is the curriculum; rows never come twice in GRPO.
    assert sft.training.steps * sft.training.batch_size == SIZES["sft"]
    assert sft.data.shuffle is False
    assert grpo.training.steps * grpo.training.batch_size <= SIZES["prompts"]
