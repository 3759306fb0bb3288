"""Measures of responses: what each means, its unit, and what it needs."""
