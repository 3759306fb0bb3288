"""Contrastive embedding models: texts to vectors that are close where the texts belong together."""
