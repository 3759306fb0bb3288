"""Build the site: ``make docs``, or ``PYTHONPATH=docs python -m site_builder``."""

from __future__ import annotations

import sys
from pathlib import Path

from site_builder.build import build
from site_builder.pages import ROOT, SiteError

if __name__ == "__main__":
    try:
        site = build(ROOT / "build" / "docs")
    except SiteError as error:
        sys.exit(f"The site was not built:\n{error}")
    sys.stdout.write(f"Open {site.relative_to(Path.cwd())}/index.html\n")
