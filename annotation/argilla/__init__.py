"""Argilla behind words of our own: its REST API, and what a labeller does on its page."""
