"""Text classifiers: texts with labels, training, and how right and how sure they are."""
