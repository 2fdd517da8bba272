"""Arkivum's appliance (A-Stor, API 2) as an archive: bytes go through its mount, its REST interface is asked.

`settings.py` has the keys, `client.py` asks, `answers.py` decides what the answers mean, `verdict.py` what follows from
them and from what lies on the mount, `recalls.py` brings bytes back, `service.py` is the service.

Arkivum's later software as a service (version 6) has another interface, which is not spoken here.
"""

from omero_archive.services.arkivum.service import ArkivumService

__all__ = ["ArkivumService"]
