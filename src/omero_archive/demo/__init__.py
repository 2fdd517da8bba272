"""A small real OMERO on this machine: its PostgreSQL, its tables, its files, and the story told on it."""
