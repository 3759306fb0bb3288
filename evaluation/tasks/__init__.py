"""What policies are asked, with references and checkers: the same for every policy."""
