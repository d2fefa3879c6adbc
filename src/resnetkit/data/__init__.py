"""Files in, arrays out; no torch."""
