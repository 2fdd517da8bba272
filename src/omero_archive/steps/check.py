"""Check: everything a site needs, looked at, with what to do where something is not in order. Changes nothing."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from omero_archive.catalogue import counts
from omero_archive.catalogue.whose import whose
from omero_archive.errors import ArchiveError, BrokenInvariant, DatabaseUnavailable, SettingsError
from omero_archive.files import has_locks
from omero_archive.model import ServiceName
from omero_archive.near import LOCKS
from omero_archive.omero.offline import Answer, ServerPorts, probe_all
from omero_archive.service import Finding
from omero_archive.steps.check_root import check_root
from omero_archive.steps.nearest import USABLE
from omero_archive.steps.sight import require_named
from omero_archive.steps.site import Site
from omero_archive.waiting import NoAnswer, answer_within

_PATIENCE_S = 180.0
"""How long a service may take to look at itself, which may be several requests of a minute each."""

_WHO = "Run omero-archive as OMERO's own system user, or as root."


def check(site: Site) -> list[Finding]:
    """What was looked at, in the order in which it is needed."""
    found = [
        _try("OMERO's database", lambda: _omero_database(site), "See `[omero] database` in the settings."),
        _directory("OMERO's data directory", site.settings.omero.data_dir),
        _directory("managed repository", site.settings.omero.managed_repository),
        *_catalogue_and_what_it_knows(site),
    ]
    for name in site.services:
        found += check_service(site, name)
    return [*found, *_unnamed(site), _server(site)]


def check_service(site: Site, name: ServiceName) -> list[Finding]:
    """What a service found of itself. A service that cannot even look, or whose plugin is wrong, is a finding too."""
    subject = f"service {name}"
    try:
        found = answer_within(_PATIENCE_S, lambda: list(site.services[name].check()))
    except NoAnswer as error:
        advice = "Does its mount hang, or the system behind it? Look with the tools of the machine, such as `df`."
        return [Finding(subject=subject, is_fine=False, text=str(error), advice=advice)]
    except (ArchiveError, OSError) as error:
        advice = "Correct its settings or make it reachable, then run `omero-archive check` again."
        return [Finding(subject=subject, is_fine=False, text=str(error), advice=advice)]
    except Exception as error:  # noqa: BLE001 - a plugin may be anybody's, and `check` is there to say that it is wrong
        text = f"a fault in the plugin {site.settings.services[name]['type']!r}: {type(error).__name__}: {error}"
        return [Finding(subject=subject, is_fine=False, text=text, advice="Tell those who wrote the plugin.")]
    if not found:
        return [Finding(subject=subject, is_fine=True, text="nothing is looked at for services of this type")]
    return found + _standing(site, name)


def _standing(site: Site, name: ServiceName) -> list[Finding]:
    """What a service is for at this site, where that is not the usual."""
    subject = f"service {name}"
    if site.settings.common(name).read_only:
        return [Finding(subject=subject, is_fine=True, text="is only read (read_only); it gets no copies")]
    if name not in site.settings.service_names:
        return [Finding(subject=subject, is_fine=True, text="gets no copies: release.copies does not name it")]
    return []


def _unnamed(site: Site) -> Iterator[Finding]:
    """Services on which the catalogue knows copies, and of which the settings know nothing."""
    try:
        site.catalogue.require_schema()
        with site.catalogue.begin() as connection:
            counted = [one for one in counts.counted(connection) if one.state in USABLE]
            for name in sorted({one.service for one in counted} - site.services.keys()):
                left = counts.left_on(connection, name, named=list(site.services), usable=USABLE)
                yield _given_up(name, sum(one.copies for one in counted if one.service == name), left)
    except (SettingsError, DatabaseUnavailable):
        return  # others say so


def _given_up(name: str, many: int, left: int) -> Finding:
    subject, text = f"service {name}", f"is not in the settings, though the catalogue knows {many} copies there"
    if not left:
        text += "; each of these files has a copy on another service too"
        return Finding(subject=subject, is_fine=True, text=text)
    text += f"; of {left} of these files there is no other, and they cannot be recalled now"
    advice = f"Was it renamed? Give [services.{name}] its name back. With `read_only = true` it gets no new copies."
    return Finding(subject=subject, is_fine=False, text=text, advice=advice)


def _try(subject: str, look: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(subject=subject, is_fine=True, text=look())
    except (ArchiveError, OSError) as error:
        return Finding(subject=subject, is_fine=False, text=str(error), advice=advice)


def _omero_database(site: Site) -> str:
    site.omero.check_version()
    root = Path(site.omero.repository().root)
    wanted = site.settings.omero.managed_repository
    if root.resolve() != wanted.resolve():
        return f"OMERO 5.4 layout; its managed repository is {root} there, {wanted} here"
    return f"OMERO 5.4 layout, managed repository {root}"


def _catalogue_and_what_it_knows(site: Site) -> Iterator[Finding]:
    try:
        site.catalogue.require_schema()
    except SettingsError as error:
        text = f"{error} The archive root and near bytes were not looked at: `init` may have to make their directories."
        yield Finding(subject="catalogue", is_fine=False, text=text, advice="Then run `omero-archive check` again.")
        return
    except DatabaseUnavailable:
        pass  # `_catalogue` says so, and the disks are looked at all the same
    yield _try("catalogue", lambda: _catalogue(site), "Make it reachable, or correct `[catalogue] database`.")
    yield from _sight(site)
    yield from check_root(site)
    yield _near(site)


def _catalogue(site: Site) -> str:
    with site.catalogue.begin() as connection:
        wrong = counts.differences(connection)
    if wrong:
        raise BrokenInvariant(f"its counts of copies, which `status` shows, are wrong: {'; '.join(wrong)}.")
    return f"schema version {site.catalogue.versions()[0]}; its counts of copies are right"


def _sight(site: Site) -> Iterator[Finding]:
    """Whether this host sees the site's directories, by their markers; and whether the catalogue is this OMERO's."""
    host = socket.gethostname()
    yield _try("site", lambda: _named(site), "Run `omero-archive init`.")
    for what, look in (("OMERO's files", site.sight.originals_problem), ("near bytes", site.sight.near_problem)):
        subject = f"{what} on {host}"
        advice = "Mount it on this host; if it is new, run `omero-archive init`. Until then its work is left to others."
        try:
            problem = look()
        except ArchiveError as error:
            problem = str(error)
        if problem is None:
            yield Finding(subject=subject, is_fine=True, text="seen: the site's marker is there")
        else:
            yield Finding(subject=subject, is_fine=False, text=problem, advice=advice)
    yield from _locks(site)


def _named(site: Site) -> str:
    require_named(site.catalogue, site.omero)
    with site.catalogue.begin() as connection:
        known = whose(connection)
    return "unknown" if known is None else f"{known.id}, of the OMERO {known.omero_uuid}"


def _locks(site: Site) -> Iterator[Finding]:
    """Said only where files cannot be locked: one of the two locks by which hosts are kept apart."""
    try:
        if has_locks(site.near.tree, LOCKS):
            return
    except (ArchiveError, OSError):
        return  # that near bytes cannot be looked at, others say
    text = f"the file system of {site.settings.archive.near_directory} has no locks on files (fcntl)"
    advice = "Mount it with locks (Lustre: `-o flock`), or run release, unarchive, recall and evict on one host only."
    yield Finding(subject="locks", is_fine=False, text=text, advice=advice)


def _directory(subject: str, path: Path, *, advice: str = "Mount it, or correct the settings.") -> Finding:
    if not path.is_dir():
        return Finding(subject=subject, is_fine=False, text=f"{path} is not there", advice=advice)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(subject=subject, is_fine=False, text=f"{path} cannot be written by this user", advice=_WHO)
    return Finding(subject=subject, is_fine=True, text=str(path))


def _near(site: Site) -> Finding:
    subject = "near bytes"
    try:
        near = site.near
        managed = site.tree(site.settings.omero.managed_repository)
    except ArchiveError as error:
        return Finding(subject=subject, is_fine=False, text=str(error), advice="Run `omero-archive init`.")
    if not os.access(near.tree.root, os.R_OK | os.W_OK | os.X_OK):
        text = f"{near.tree.root} cannot be written by this user"
        return Finding(subject=subject, is_fine=False, text=text, advice=_WHO)
    free = f"{near.tree.root}, {near.free_bytes() / 1e9:.1f} GB free"
    if near.tree.is_beside(managed):
        return Finding(subject=subject, is_fine=True, text=f"{free}; on the repository's file system: release is free")
    text = f"{free}; on another file system than the repository: release copies and verifies every byte"
    return Finding(subject=subject, is_fine=True, text=text)


def _server(site: Site) -> Finding:
    """Whether OMERO runs is no fault either way; that nobody can tell is one."""
    omero = site.settings.omero
    try:
        probes = probe_all(site.omero, omero.managed_repository, ServerPorts(host=omero.host, ports=omero.ports))
    except ArchiveError as error:
        return Finding(subject="OMERO.server", is_fine=False, text=str(error))
    told = "; ".join(map(str, probes))
    if any(probe.answer is Answer.ON for probe in probes):
        return Finding(subject="OMERO.server", is_fine=True, text=f"is running; release and unarchive wait. {told}")
    if sum(probe.answer is Answer.OFF for probe in probes) >= 2:
        return Finding(subject="OMERO.server", is_fine=True, text=f"is off; release and unarchive may be run. {told}")
    advice = "Release needs two probes that can tell. See `[omero] host` and `ports`."
    return Finding(subject="OMERO.server", is_fine=False, text=f"cannot be told. {told}", advice=advice)
