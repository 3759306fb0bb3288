"""The embedded world: a small shop's help desk in which alignment can happen and be judged."""
