"""Sweeps: tuning several methods with the same budget."""
