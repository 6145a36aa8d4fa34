"""A run directory -> one HTML file that opens from disk, prints, and asks nothing of a network."""

from __future__ import annotations

from strop.report.html import write_report

__all__ = ["write_report"]
