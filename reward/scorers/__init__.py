"""Scorers that are no reward models, and scorers made of others.

Each is a `plumbline.hooks.Scorer`. A user names them in a file of terms (docs/reward-scoring.md);
`recipes._scorers` has their table.
"""
