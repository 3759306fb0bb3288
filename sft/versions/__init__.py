"""Versions of a dataset: its history, differences, and the one in use."""
