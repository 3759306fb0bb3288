"""Judges of responses: scorers, people, and LLMs that compare pairs in both orders."""
