"""From files to token ids: read rows, recognise their shape, render them, look at the result.

`read` gives rows with file and line, `formats` makes groups of them, `chat` gives ids and the
loss mask, `inspect` shows both; `pack` and `source` make a step's batches. Reading is torch-free.
"""
