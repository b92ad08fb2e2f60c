"""Scoring: which units a decoded model is scored on, and what it predicts of them."""
