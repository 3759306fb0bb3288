"""Language models: loading, chat templates, sampling and log-probabilities."""
