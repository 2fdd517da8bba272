"""The service of a table `[services.NAME]`, with what its common keys ask for put around it."""

from collections.abc import Mapping

from omero_archive.model import Clock, ServiceName
from omero_archive.service import Service, load_service
from omero_archive.settings import CommonSettings, common_settings
from omero_archive.wrapped.logged import Logged
from omero_archive.wrapped.read_only import ReadOnly
from omero_archive.wrapped.redacted import Redacted, Redaction, secrets_of
from omero_archive.wrapped.retrying import Retrying
from omero_archive.wrapped.throttled import Throttled
from omero_archive.wrapped.unsettled import Unsettled


def configured_service(name: ServiceName, table: Mapping[str, object], *, clock: Clock) -> Service:
    """The service of a table, as it is to be used. Raises `SettingsError` naming the key."""
    common, rest = common_settings(name, table)
    return wrapped(load_service(name, common.type, rest, clock=clock), name, common, Redaction(secrets_of(rest)))


def wrapped(service: Service, name: ServiceName, common: CommonSettings, redaction: Redaction) -> Service:
    """A service with its decorators. From the inside: no secrets, who is to blame, a line for each try, tries, pace,
    what is allowed."""
    service = Logged(Unsettled(Redacted(service, redaction)), name)
    if common.retries:
        service = Retrying(service, retries=common.retries)
    if common.rate is not None:
        service = Throttled(service, rate=common.rate)
    return ReadOnly(service, name) if common.read_only else service
