"""The server's packages have none of the holes that are known here."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from annotation.server.environment import REQUIREMENTS

ADVISORIES = REQUIREMENTS.with_name("advisories.toml")


def _pinned(text):
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert all(str(r.specifier).startswith("==") for r in requirements)
    return {canonicalize_name(r.name): Version(str(r.specifier)[2:]) for r in requirements}


def _holes(pinned, advisories):
    """Return the packages with a known hole."""
    return sorted(
        entry["name"]
        for entry in advisories["package"]
        if (version := pinned.get(canonicalize_name(entry["name"]))) is not None
        and ("fixed" not in entry or version < Version(entry["fixed"]))
    )


@pytest.fixture(scope="module")
def advisories():
    return tomllib.loads(ADVISORIES.read_text())


def test_no_pinned_version_has_a_known_hole(advisories):
    assert _holes(_pinned(REQUIREMENTS.read_text()), advisories) == []


def test_the_versions_before_the_review_had_holes(advisories):
    """The same comparison finds what the review found in the earlier pins."""
    earlier = _pinned(
        "starlette==0.46.2\npython-jose==3.3.0\necdsa==0.19.1\nurllib3==1.26.20\n"
        "social-auth-core==4.5.4\nh11==0.16.0\n"
    )
    assert _holes(earlier, advisories) == [
        "ecdsa", "python-jose", "social-auth-core", "starlette", "urllib3",
    ]  # fmt: skip


def test_every_entry_is_whole(advisories):
    for entry in advisories["package"]:
        assert set(entry) <= {"name", "fixed", "ids", "note"}
        assert entry["ids"] or entry["note"], entry["name"]
