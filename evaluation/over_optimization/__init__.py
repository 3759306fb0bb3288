"""Over-optimization: the reward model's score still rises while true quality falls."""
