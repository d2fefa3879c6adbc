"""May one believe it."""
