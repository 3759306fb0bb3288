"""Choosing which pairs to label next."""
