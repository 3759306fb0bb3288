"""Engines: where responses come from."""
