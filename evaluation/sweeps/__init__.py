"""Hyperparameter sweeps: search spaces, trials and which settings won."""
