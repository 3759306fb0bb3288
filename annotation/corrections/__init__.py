"""Texts that people correct: doubtful questions and answers, sent out, edited, and brought back."""
