"""An LLM as a judge of pairs, asked in both orders."""
