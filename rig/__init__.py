"""Builds a patched Linux kernel, boots it, tests it over SSH and gives a verdict."""
