"""The command line of every room. It may import every room, and nothing imports it."""
