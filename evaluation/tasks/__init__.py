"""Tasks: the prompts that policies respond to, with references and checkers."""
