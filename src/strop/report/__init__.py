"""A run directory -> one HTML file that opens from disk, prints, and asks nothing of a network; several -> another."""

from __future__ import annotations

from strop.report.compare import write_comparison
from strop.report.html import write_report
from strop.report.telling import told

__all__ = ["told", "write_comparison", "write_report"]
