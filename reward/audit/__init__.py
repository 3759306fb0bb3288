"""What a reward model is worth, and how it can be gamed, before one optimises against it."""
