"""Argilla's server on SQLite alone: search, jobs and protection for one labelling site.

This package runs in a virtual environment of its own (see ``annotation/server/environment.py``),
because argilla-server pins versions that the training environment cannot have.
"""
