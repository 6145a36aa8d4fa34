"""Completions from the current policy: the in-process sampler and its parts.

`sampler` is the door. `draw` turns logits and a uniform number into a token, `transcript` keeps
what was sampled and decides when a row is done, `cache` and `attention` share each prompt's keys
and values among its rows, `lean` runs the common block in few operations where it proves the same
as the modules, `padded` is the plain loop for models without the attention hook.
"""
