"""A few files that OMERO's database knows, to see whether a directory is its managed repository."""

from omero_archive.errors import UnsafePath
from omero_archive.model import Key
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.repository import managed_key

_QUERY = """
    (SELECT f.path, f.name FROM filesetentry AS e JOIN originalfile AS f ON f.id = e.originalfile
     ORDER BY e.id LIMIT %(few)s)
    UNION (SELECT f.path, f.name FROM filesetentry AS e JOIN originalfile AS f ON f.id = e.originalfile
           ORDER BY e.id DESC LIMIT %(few)s)
"""


def newest_and_oldest(database: OmeroDatabase, few: int = 50) -> list[Key]:
    """The keys of the files of filesets that were imported first and last, at most `few` of each."""
    with database.connect_read_only() as conn:
        rows = conn.execute(_QUERY, {"few": few}).fetchall()
    found = []
    for path, name in rows:
        try:
            found.append(managed_key(path, name, encoding=database.filename_encoding))
        except UnsafePath:
            continue  # it cannot be there either
    return found
