"""A generative judge: a language model that is asked which of two responses is better."""
