"""Questions and answers from documents: reading, slices, a generator, checks."""
