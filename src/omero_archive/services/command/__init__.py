"""Any program that speaks our protocol as an archive: `docs/reference/command-protocol.md` describes it.

`protocol` knows the messages, `process` one running program, `conversation` asks it and starts it anew, `service`
makes verbs of the contract from questions and answers. Bytes go by files in a spool directory: a program is given
whole files whose size and digests are known, and gives whole files, whose size is compared with its word.
"""

from omero_archive.services.command.service import CommandService
from omero_archive.services.command.settings import CommandSettings

__all__ = ["CommandService", "CommandSettings"]
