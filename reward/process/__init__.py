"""Process reward: every step of a chain of thought has a reward of its own."""
