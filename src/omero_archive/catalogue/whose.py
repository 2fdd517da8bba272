"""Whose catalogue this is: the site's id, which its markers carry, and the uuid of the OMERO that it belongs to."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import sqlalchemy as sa

from omero_archive.catalogue.tables import file, site


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """The one row. `omero_uuid` is None until OMERO's database was asked for the first time."""

    id: UUID
    omero_uuid: str | None


def whose(connection: sa.Connection) -> Whose | None:
    """What the catalogue knows of its site; None before `omero-archive init`."""
    if connection.scalar(sa.select(sa.func.to_regclass(site.name))) is None:
        return None
    row = connection.execute(sa.select(site.c.id, site.c.omero_uuid)).first()
    return None if row is None else Whose(id=row.id, omero_uuid=row.omero_uuid)


def name_site(connection: sa.Connection, known: UUID | None = None) -> Whose:
    """Give the site its id, `known` where its directories carry one already and the catalogue is new.

    A catalogue is new until it belongs to an OMERO. Done twice is done once.
    """
    # Two may do it at once, on two hosts: one row must come of it.
    connection.execute(sa.text("LOCK TABLE site IN SHARE ROW EXCLUSIVE MODE"))
    found = whose(connection)
    if found is not None and found.omero_uuid is None and known is not None:
        connection.execute(sa.update(site).values(id=known))
        return Whose(id=known, omero_uuid=None)
    if found is not None:
        return found
    made = known or uuid4()
    connection.execute(sa.insert(site).values(id=made, made_at=connection.info["clock"]()))
    return Whose(id=made, omero_uuid=None)


def belongs_to(connection: sa.Connection, omero_uuid: str) -> str:
    """Remember OMERO's database at first use; the uuid of the one that is remembered, this or another."""
    known = sa.select(site.c.omero_uuid)
    found = connection.scalar(known)
    if found is None:  # asked first: to look at a catalogue no right to change it is needed
        connection.execute(sa.update(site).where(site.c.omero_uuid.is_(None)).values(omero_uuid=omero_uuid))
        found = connection.scalar(known)
    return omero_uuid if found is None else str(found)


def knows_files_below(connection: sa.Connection, top: str) -> bool:
    """Whether the catalogue knows files whose keys begin with that directory's name."""
    first, beyond = f"{top}/", f"{top}{chr(ord('/') + 1)}"
    found = sa.select(file.c.id).where(file.c.key >= first, file.c.key < beyond).limit(1)
    return connection.execute(found).first() is not None
