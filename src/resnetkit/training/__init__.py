"""Training loops in plain torch."""
