"""Measures of answers: what each means, in what unit, and what it needs."""
