"""Write a running site's tables into a file of SQLite: ``python -m plumbline_site.export``.

For backups of a site on PostgreSQL. The arguments are the site's settings file and the new file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from plumbline_site import services
from plumbline_site.__main__ import configure


def main() -> None:
    """Write the file."""
    os.umask(0o077)
    site = json.loads(Path(sys.argv[1]).read_text())
    home = Path(site["home"])
    stored = services.read(home)
    if stored is None:
        sys.exit(f"The site in {home} is on SQLite.")
    problem = services.problem_with_database(stored, home)
    if problem is not None:
        sys.exit(problem)
    configure(site, home, stored)
    from plumbline_site import moving

    moving.into_sqlite(stored, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
