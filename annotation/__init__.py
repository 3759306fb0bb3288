"""Labels: who preferred what, when and why, and how votes become preferences."""
