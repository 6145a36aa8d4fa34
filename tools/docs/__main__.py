"""Write what of the documentation is made from the code: `python -m tools.docs`, or `make docs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.docs import names, tables

DOCS = Path(__file__).parents[2] / "docs"


def written() -> Mapping[Path, str]:
    """Every page that holds something made, as it should stand."""
    api = {DOCS / "api" / name: text for name, text in names.pages().items()}
    filled = {page: tables.filled(page.read_text("utf-8")) for page in DOCS.rglob("*.md") if page not in api}
    made = {page: text for page, text in filled.items() if tables.MARKED.search(text)}
    return {**api, **made, DOCS / "settings.md": tables.settings_page()}


def main() -> None:
    """Write the pages that differ, and name them; pages of the reference that are no more are removed."""
    pages = written()
    for gone in set((DOCS / "api").glob("*.md")) - set(pages):
        gone.unlink()
        print(f"removed {gone.relative_to(DOCS.parent)}")
    for page, text in pages.items():
        if not page.exists() or page.read_text("utf-8") != text:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, "utf-8")
            print(page.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
