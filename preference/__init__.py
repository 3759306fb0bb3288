"""Preference pairs, and policies trained on them directly (DPO)."""
