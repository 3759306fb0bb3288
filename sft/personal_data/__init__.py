"""Personal data in texts: found, masked, and brought back under a key."""
