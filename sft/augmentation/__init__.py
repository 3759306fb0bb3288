"""New training rows from old ones: seeded edits of what users write."""
