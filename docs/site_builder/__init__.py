"""Builds the documentation site from ``docs/``, the docstrings, the settings and the commands."""
