"""A scorer behind HTTP, so that several trainings share one model, and the client that asks it."""
