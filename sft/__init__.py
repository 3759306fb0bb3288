"""Demonstrations and the SFT policy: building the data, and training on it."""
