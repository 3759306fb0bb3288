"""Campaigns: pairs out to people who label them in Argilla, and their labels back."""
