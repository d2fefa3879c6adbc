"""Pretrained weights: which there are, where they lie, and how they go into a network."""
