"""Open-vocabulary dense prediction."""
