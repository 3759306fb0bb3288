"""Where labels come from besides people in Argilla: files, simulations, several sources as one."""
