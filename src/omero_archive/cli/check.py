"""`check`: is everything in order, and what to do if not."""

import typer

from omero_archive.app import open_site
from omero_archive.cli.options import Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.check import check as look


def check(as_json: Json = False, settings: SettingsFile = None) -> None:
    """Look at everything omero-archive needs: databases, directories, services, OMERO's state. Changes nothing."""
    output = Output(as_json=as_json)
    with open_site(load_settings(settings_file(settings))) as site:
        findings = look(site)
    for finding in findings:
        output.say(f"{'ok  ' if finding.is_fine else 'FAIL'}  {finding.subject}: {finding.text}")
        if finding.advice:
            output.say(f"      {finding.advice}")
    wrong = sum(not finding.is_fine for finding in findings)
    output.say("Everything is in order." if not wrong else f"{wrong} of {len(findings)} are not in order.")
    output.document(
        {
            "command": "check",
            "findings": [{"subject": f.subject, "ok": f.is_fine, "text": f.text, "advice": f.advice} for f in findings],
        }
    )
    if wrong:
        raise typer.Exit(1)
