"""The embedded world: four small tasks, an oracle for them, a tokenizer and a model of 0.4 M.

Everything is made by this package's own code from a seed, so every kind of training can be seen
to work (and be tested) with nothing downloaded, on two CPU cores, in minutes.
"""

from strop.world.oracle import Response, correct, gold, parse, step_labels, style, thinks
from strop.world.tasks import KINDS, Task, make_task, split_of
from strop.world.write import SIZES, resolve, write_world

__all__ = [
    "KINDS",
    "SIZES",
    "Response",
    "Task",
    "correct",
    "gold",
    "make_task",
    "parse",
    "resolve",
    "split_of",
    "step_labels",
    "style",
    "thinks",
    "write_world",
]
