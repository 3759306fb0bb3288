"""From votes to preferences: majority, models of annotators, adjudication."""
