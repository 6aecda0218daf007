"""The machine protocol and its kinds."""
