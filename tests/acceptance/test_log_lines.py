"""Log lines: each one names the work that it is about, as text for people or as JSON for programs."""

import json

from site_fixtures import CommandSite, rows_of


def test_every_line_is_json_and_has_the_ids_of_its_work(command_site: CommandSite) -> None:
    command_site.run("add", command_site.demo.fileset("ics").reference)
    ended = command_site.run("--verbose", "--log-json", "run", "--host-label", "mover7")
    dsn = command_site.demo.catalogue_dsn
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines), lines
    assert any(line.get("logger", "").startswith("procrastinate") for line in lines), "what libraries say too"
    done = [line for line in lines if line["event"] == "job done"]
    assert {(line["step"], line.get("service")) for line in done} >= {
        ("copy", "tape"),
        ("manifest", "tape"),
        ("verify", "tape"),
        ("confirm", "tape"),
    }
    used = [line for line in lines if line["event"] == "service used" and line["action"] == "put_group"]
    assert {(line["step"], line["service"], line["host_label"]) for line in used} == {("copy", "tape", "mover7")}
    (attempt,) = [row for row in rows_of(dsn, only=["attempt"])["attempt"] if row["step"] == "copy"]
    assert {(line["attempt"], line["worker"]) for line in used} == {(attempt["id"], attempt["worker_id"])}


def test_the_environment_says_it_too_and_otherwise_lines_are_for_people(command_site: CommandSite) -> None:
    command_site.run("add", command_site.demo.fileset("ics").reference)
    environment = command_site.environment | {"OMERO_ARCHIVE_LOG": "info", "OMERO_ARCHIVE_LOG_FORMAT": "json"}
    told = command_site.runner.run(["run"], environment).stderr.splitlines()
    assert told
    assert all(isinstance(json.loads(line), dict) for line in told)
    command_site.run("run", "--retry")
    text = command_site.runner.run(["run"], command_site.environment | {"OMERO_ARCHIVE_LOG": "info"}).stderr
    assert all(line.startswith("timestamp=") for line in text.splitlines())
    refused = command_site.runner.run(["status"], command_site.environment | {"OMERO_ARCHIVE_LOG_FORMAT": "xml"})
    assert refused.code == 2
    assert "there is no format 'xml'; there are logfmt, json" in refused.stderr


def test_lines_about_a_bundle_name_it(command_site: CommandSite) -> None:
    reference = command_site.demo.fileset("ics").reference
    command_site.set_up(keep_originals="0d")
    for command in (("add", reference), ("run",), ("release", reference), ("recall", "--later", reference)):
        command_site.run(*command)
    environment = command_site.environment | {"OMERO_ARCHIVE_LOG": "debug"}
    lines = command_site.runner.run(["--log-json", "run"], environment).stderr.splitlines()
    recalled = [line for line in map(json.loads, lines) if line.get("step") == "recall" and "action" in line]
    opened = [line for line in recalled if line["action"] == "open"]
    assert opened, lines[:40]
    assert {(line["service"], line["bundle"]) for line in opened} == {("tape", reference.replace(":", "-"))}
