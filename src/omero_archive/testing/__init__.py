"""Doubles that do real work and can be told to go wrong, for our own tests and for those who write plugins."""
