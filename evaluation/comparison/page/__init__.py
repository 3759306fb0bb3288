"""The comparison's page: from its content, a plain dictionary, to files that open offline."""

from __future__ import annotations

from evaluation.comparison.page.render import live_page, live_parts, sections, write

__all__ = ["live_page", "live_parts", "sections", "write"]
