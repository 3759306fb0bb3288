"""A page that shows what a dataset holds."""
