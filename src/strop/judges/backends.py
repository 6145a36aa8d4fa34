"""Who may be asked, told apart by `name`."""

from __future__ import annotations

from strop.judges.endpoint import Endpoint
from strop.judges.function import Function
from strop.judges.inprocess import InProcess

BackendSettings = Endpoint | InProcess | Function
