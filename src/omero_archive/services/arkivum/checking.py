"""Whether the appliance is in order, for `omero-archive check`: can it be asked, its clock, its mount."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from omero_archive.errors import ArchiveError
from omero_archive.files import Tree
from omero_archive.model import Clock, ServiceName
from omero_archive.mount import MARKER
from omero_archive.service import Finding
from omero_archive.services.arkivum.answers import Unintelligible
from omero_archive.services.arkivum.client import Appliance, Greeting
from omero_archive.services.arkivum.paths import path_of
from omero_archive.services.arkivum.settings import ArkivumSettings, is_loopback

SKEW = timedelta(minutes=5)
"""By so much the clocks may differ: silences are measured with both."""


def findings(name: ServiceName, settings: ArkivumSettings, appliance: Appliance, clock: Clock) -> Iterator[Finding]:
    """What is to be said of the REST interface and of the clock; never raises for what it looks for."""
    subject = f"service {name}"
    if settings.url.startswith("http:") and not is_loopback(settings.url):
        text = f"{settings.url} is asked in plain text: whoever is between can say that files are safe"
        yield Finding(subject=subject, is_fine=False, text=text, advice="Use https, with `ca_file` if need be.")
    try:
        greeting = appliance.greet()
    except ArchiveError as error:
        advice = "Is `url` right, and may this machine reach it? `curl` with the same address tells more."
        yield Finding(subject=subject, is_fine=False, text=str(error), advice=advice)
        return
    except Unintelligible as error:
        text = f"{settings.url} answers the question for its state with {error}"
        advice = "Is `url` that of an A-Stor appliance with API 2, such as https://host:8443?"
        yield Finding(subject=subject, is_fine=False, text=text, advice=advice)
        return
    free = "" if greeting.free_bytes is None else f", {greeting.free_bytes / 1e9:.1f} GB free on the appliance"
    yield Finding(subject=subject, is_fine=True, text=f"{settings.url} answers{free}")
    yield _clocks(subject, greeting, clock)
    yield _belonging(subject, settings, appliance, clock)


def _clocks(subject: str, greeting: Greeting, clock: Clock) -> Finding:
    if greeting.date is None:
        return Finding(subject=subject, is_fine=True, text="the appliance does not tell its time")
    ahead = (greeting.date - clock()).total_seconds()
    if abs(ahead) > SKEW.total_seconds():
        side = "ahead of" if ahead > 0 else "behind"
        text = f"the appliance's clock is {abs(ahead) / 60:.0f} min {side} ours"
        advice = "Let both be set by NTP: `silence` and `overdue` are measured with both."
        return Finding(subject=subject, is_fine=False, text=text, advice=advice)
    return Finding(subject=subject, is_fine=True, text="the appliance's clock is ours")


def _belonging(subject: str, settings: ArkivumSettings, appliance: Appliance, clock: Clock) -> Finding:
    """Whether the appliance knows the marker that lies on the mount, under `folder`."""
    try:
        with Tree(settings.path) as tree:
            marker = tree.look(MARKER)
        known = appliance.file(path_of(settings, MARKER))
    except OSError as error:
        return Finding(subject=subject, is_fine=False, text=f"{settings.path}: {error.strerror}", advice="Mount it.")
    except (ArchiveError, Unintelligible) as error:
        text = f"whether {settings.path} is the appliance's {settings.folder} could not be found out: {error}"
        return Finding(subject=subject, is_fine=False, text=text, advice="Try again; then ask the vendor's support.")
    if marker is None:
        text = f"{settings.path} has no marker file"
        return Finding(subject=subject, is_fine=False, text=text, advice="Run `omero-archive init`.")
    if known is not None and known.size_bytes in (None, marker.identity.size_bytes):
        text = f"{settings.path} is the appliance's {settings.folder}"
        return Finding(subject=subject, is_fine=True, text=text)
    age = clock() - datetime.fromtimestamp(marker.identity.ctime_ns / 1e9, UTC)
    if known is None and age <= settings.silence:
        text = f"the appliance does not know the new marker file on {settings.path} yet; look again in a while"
        return Finding(subject=subject, is_fine=True, text=text)
    what = "does not know" if known is None else "has another file than"
    return Finding(
        subject=subject,
        is_fine=False,
        text=f"the appliance {what} {MARKER} in its {settings.folder}, which lies on {settings.path}",
        advice="Is `folder` the appliance's path of what is mounted there, and `url` the same appliance?",
    )
