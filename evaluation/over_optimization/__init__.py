"""Over-optimisation: where the reward model still rises and true quality falls."""
