"""The page of a comparison: from its content, a plain dictionary, to files that open offline."""

from __future__ import annotations

from evaluation.comparison.page.render import (
    TABLES_FOLDER,
    live_page,
    live_parts,
    sections,
    write,
)

__all__ = ["TABLES_FOLDER", "live_page", "live_parts", "sections", "write"]
