"""What is predicted; no torch."""
