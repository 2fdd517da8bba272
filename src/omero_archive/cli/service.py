"""`service list`: the archive services of this site, and the types that are installed."""

from typing import Any

from omero_archive.app import open_site
from omero_archive.cli.options import Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.service import service_types
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.check import check_service


def list_services(as_json: Json = False, settings: SettingsFile = None) -> None:
    """Show the configured services, whether each is in order, and the installed types."""
    output = Output(as_json=as_json)
    rows: list[dict[str, Any]] = []
    with open_site(load_settings(settings_file(settings))) as site:
        for name in site.settings.nearest_first:
            findings = check_service(site, name)
            common = site.settings.common(name)
            rows.append(
                {
                    "name": name,
                    "type": common.type,
                    "is_wanted": name in site.settings.service_names,
                    "read_only": common.read_only,
                    "distance": common.distance,
                    "ok": all(finding.is_fine for finding in findings),
                    "text": "; ".join(finding.text for finding in findings),
                    "advice": [finding.advice for finding in findings if finding.advice],
                }
            )
        wanted = str(site.settings.release.policy)
    output.table(
        ["service", "type", "gets copies", "in order", ""],
        [[r["name"], r["type"], _yes(r["is_wanted"]), _yes(r["ok"]), r["text"]] for r in rows],
    )
    for row in rows:
        for advice in row["advice"]:
            output.say(f"{row['name']}: {advice}")
    output.say(f"Before originals may go there must be durable copies on {wanted}. Recalls ask in the order above.")
    types = service_types()
    output.say(f"Installed types: {', '.join(sorted(types))}.")
    output.document({"command": "service list", "services": rows, "copies": wanted, "types": dict(types)})


def _yes(value: object) -> str:
    return "yes" if value else "no"
