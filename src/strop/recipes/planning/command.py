"""`strop plan`: the recipe as it was asked for, and the cards among the arguments."""

from __future__ import annotations

from collections.abc import Sequence

from strop.recipes.config import RecipeError, load_recipe, resolve
from strop.recipes.planning.fits import USUAL, Cards
from strop.recipes.preflight import check_config, check_inputs
from strop.recipes.settings import Recipe

LACKING = ("data", "rewards", "labeller", "old")
"""Settings that a plan can do without: it needs no rows and asks nobody."""
WHOLE = "optional=[]"
"""Leaves out no stage for want of data."""


def asked(ref: Sequence[str], pairs: Sequence[str]) -> Recipe:
    """The recipe with overrides, without its data and rewards where they are not named.

    Stages without data are left out, as `strop run` leaves them out; where that leaves none, all are planned.

    Raises: RecipeError with what is wrong; ValueError for a path that is no file.
    """
    try:
        recipe = load_recipe(list(ref), list(pairs))
    except RecipeError as error:
        if WHOLE not in pairs and any(problem.path == "stages" for problem in error.problems):
            return asked(ref, [*pairs, WHOLE])
        wrong = [problem for problem in error.problems if problem.path.rpartition(".")[2] not in LACKING]
        if wrong:
            raise RecipeError(wrong) from error
        recipe = resolve(list(ref), list(pairs))
    check_inputs(recipe, check_config)
    return recipe


def cards_of(named: Sequence[str], arguments: Sequence[str]) -> tuple[tuple[Cards, ...], list[str]]:
    """The cards of `--gpu`, of which more may follow as plain numbers, and the other arguments."""
    more = [text for text in arguments if "=" not in text and text[:1].isdigit()]
    if more and not named:
        raise ValueError(f"{more[0]}: a setting is key=value; cards stand behind --gpu, as --gpu 24 80")
    cards = tuple(Cards.of(text) for text in [*named, *more]) or USUAL
    return cards, [text for text in arguments if text not in more]
