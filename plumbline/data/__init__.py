"""Records: the formats they come in, the formats they are kept in, and labels."""
