"""Rows that repeat others, or that an evaluation asks."""
