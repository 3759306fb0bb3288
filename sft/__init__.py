"""Demonstrations and the first policy: building the data, and training on it."""
