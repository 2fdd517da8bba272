"""The steps of a bundle's way, one verb a module: look, act, make durable, record.

Recording comes last and is guarded, so every step may be killed anywhere and run again, twice at once too.
"""
