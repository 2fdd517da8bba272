"""`service list`: the archive services of this site, and the types that are installed."""

from omero_archive.app import open_site
from omero_archive.cli.options import Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.service import service_types
from omero_archive.settings import load_settings, settings_file


def list_services(as_json: Json = False, settings: SettingsFile = None) -> None:
    """Show the configured services, whether each is in order, and the installed types."""
    output = Output(as_json=as_json)
    rows = []
    with open_site(load_settings(settings_file(settings))) as site:
        for name, service in site.services.items():
            findings = service.check()
            rows.append(
                {
                    "name": name,
                    "type": site.settings.services[name]["type"],
                    "is_wanted": name in site.settings.service_names,
                    "ok": all(finding.is_fine for finding in findings),
                    "text": "; ".join(finding.text for finding in findings),
                }
            )
    output.table(
        ["service", "type", "gets copies", "in order", ""],
        [[r["name"], r["type"], _yes(r["is_wanted"]), _yes(r["ok"]), r["text"]] for r in rows],
    )
    types = service_types()
    output.say(f"Installed types: {', '.join(sorted(types))}.")
    output.document({"command": "service list", "services": rows, "types": dict(types)})


def _yes(value: object) -> str:
    return "yes" if value else "no"
