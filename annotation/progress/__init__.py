"""How far a campaign has come: counts, pace, quality, in text, tables and a page."""
