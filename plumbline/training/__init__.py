"""What every training stage shares: settings, the training skeleton and exact resume."""
