"""The command line: one module a command. Parse, call, render; nothing is decided here."""
