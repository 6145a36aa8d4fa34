"""What goes wrong in training that its own reward does not show: measured at every evaluation, on fixed prompts.

Pure functions of samples. `samples` says what is looked at, one file a detector how, `judge` what follows.
"""
