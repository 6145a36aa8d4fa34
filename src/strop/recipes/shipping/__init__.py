"""`strop ship`: a gate that a run's model must pass, and the folder that it leaves by.

`rules` decides one figure, `evidence` finds the answers that it is taken from, `alarms` what the monitor
said, `gate` puts them together; `folder` makes the export, `card` its README, `serving` the commands that
serve it, `unaided` asks whether transformers alone says what strop says.
"""
