"""Recipes: scripts that wire stages together, each with its configs in YAML."""
