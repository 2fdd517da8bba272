"""Every access to archived files: what the archive looks like as files, and what happens when one is opened."""
