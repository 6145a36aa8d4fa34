"""One file a stage kind: its settings, what it takes and leaves, and what can be wrong with it.

Every stage class declares, for the rest of the house to read:

    takes      kinds of rows of its `data`; empty takes any
    answers    fewest and most answers a row may have; null is no limit
    leaves     its artifacts: model, samples, critic, adapter, ...
    models     its fields that name models
    datasets   its fields that name data
    problems   what is wrong with it that no single value shows, as (path, words)

What a stage does stands in `strop.recipes.stages`, in a file of the same name.
"""
