"""A model behind an OpenAI-compatible endpoint: its settings, requests, and answers kept."""
