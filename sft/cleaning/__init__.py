"""Cleaning demonstrations: each step is a row of one table."""
