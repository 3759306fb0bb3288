"""The labelling server: Argilla's own server and page, run on this machine by one command."""
