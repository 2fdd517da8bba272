"""What we know: the catalogue, a PostgreSQL database of our own. Truth about every copy and every bundle lives here.

`tables.py` is the schema, `migrations/` how a database gets there; `bundles.py`, `copies.py`, `recalls.py` and
`overview.py` are the queries, functions over a connection; `events.py` writes what happened, in the same
transaction as what it tells of.
"""
