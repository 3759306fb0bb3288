"""The commands of evaluation: evaluate, compare and watch."""
