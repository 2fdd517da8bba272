"""The schema's version is written down beside the migrations, so that no command has to load them to know it."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from omero_archive.catalogue import database


def test_the_schema_version_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == database.SCHEMA_VERSION
