"""Proximal policy optimisation with a reward model in the loop."""
