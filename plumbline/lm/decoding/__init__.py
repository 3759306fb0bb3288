"""Decoding for the decoders we know: a snapshot of the weights, and a loop with few operations."""
