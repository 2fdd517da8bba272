"""What every archive service can be given, whatever its type: tries again, a pace, read-only, a dry run, a log.

Each is one decorator: a `Service` around another `Service`. `configured.py` puts them on, by the keys that every table
`[services.NAME]` may have.
"""
