"""Scripts for the repository itself; nothing of it is installed."""
