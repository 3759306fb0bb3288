"""Who judges answers: scorers, people, and models that are asked in both orders."""
