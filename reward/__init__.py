"""Reward models: trained on preferences, used as scorers of texts."""
