"""What the reference of names holds: its pages, and whose public names stand on each."""

from __future__ import annotations

_LOSSES = """supervised pairs preference preference_shapes reference_free unpaired reward process policy token_policy
    sequence_policy ppo value"""
_PAGES = {
    "strop": ("What `import strop` gives", "strop"),
    "groups": (
        "Groups, batches, credit",
        "strop.types strop.batch strop.credit strop.token_credit strop.dist",
    ),
    "objectives": (
        "Losses: settings that are callables, and the formulas behind them",
        " ".join(["strop.objectives", *(f"strop.objectives.{name}" for name in _LOSSES.split())]),
    ),
    "rewards": ("Rewards and verifiers", "strop.rewards strop.rewards.protocol"),
    "judges": ("Judges", "strop.judges"),
    "data": (
        "Reading rows, templates, packing",
        """strop.data.formats strop.data.read strop.data.chat strop.data.encoded strop.data.pack strop.data.source
        strop.data.inspect strop.data.quality""",
    ),
    "model": (
        "Models: loading, the forward, adapters",
        """strop.model.load strop.model.forward strop.model.head strop.model.logprobs strop.model.adapter
        strop.model.average""",
    ),
    "rollout": (
        "Sampling, choosing, filtering",
        """strop.rollout.sampler strop.rollout.draw strop.rollout.rollouts strop.rollout.select strop.rollout.choose
        strop.rollout.filters strop.rollout.pairs strop.rollout.corrections strop.rollout.dynamic strop.rollout.vote
        strop.rollout.beam""",
    ),
    "train": (
        "The loop, the learner, optimizers, checkpoints",
        """strop.train.loop strop.train.learner strop.train.annotate strop.train.optim strop.train.control
        strop.train.checkpoint strop.train.metrics""",
    ),
    "evaluate": (
        "Figures with intervals",
        """strop.evaluate.statistics strop.evaluate.sampled strop.evaluate.heldout strop.evaluate.likelihood
        strop.evaluate.best_of strop.evaluate.calibration strop.evaluate.agreement""",
    ),
    "monitor": ("Watching for reward hacking", "strop.monitor.settings strop.monitor.view strop.monitor.alerts"),
    "report": ("Reports of runs", "strop.report"),
    "world": ("The embedded world", "strop.world strop.world.oracle strop.world.datasets"),
    "recipes": (
        "Recipes and runs",
        "strop.recipes.config strop.recipes.run strop.recipes.settings strop.recipes.parts",
    ),
}

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    page: (title, tuple(modules.split())) for page, (title, modules) in _PAGES.items()
}
"""Page -> its title, and the modules in order."""
