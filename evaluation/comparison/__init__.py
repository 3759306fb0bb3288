"""Comparing trained policies: matched budgets, statistics, a verdict and its page."""
