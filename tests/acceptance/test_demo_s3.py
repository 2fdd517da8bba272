"""The whole story on S3 Glacier, told by the command as a process, kept, looked at and removed."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from listening import expect_gone
from omero_archive.demo.bucket import DemoBucket


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omero_archive", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_the_story_is_true_on_glacier_and_ends_with_cold_copies(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    told = run("--service", "s3", "--no-mount", "--dir", str(place), "--large-mib", "4", "--keep", "--json")
    try:
        assert told.returncode == 0, told.stderr[-4000:]
        document = json.loads(told.stdout[told.stdout.rindex("\n{") :])
        assert document["lost"] == 0
        assert document["claims"] >= 20
        assert document["freed_bytes"] > 0
        assert "files are being staged by tape" in told.stdout  # the bytes really were away
        settings = tomllib.loads((place / "omero-archive.toml").read_text())["services"]["tape"]
        bucket = DemoBucket(settings["endpoint"])
        classes = {key.partition("/")[0]: bucket.head(key) for key in bucket.objects()}
        warm = {top for top, head in classes.items() if head is not None and "StorageClass" not in head}
        assert warm == {"manifests", "damaged"}
        assert not any(secret in told.stdout + told.stderr for secret in ("moto-secret",))
    finally:
        removed = run("--remove", "--dir", str(place))
    assert removed.returncode == 0, removed.stderr
    assert not place.exists()
    expect_gone(settings["endpoint"])
