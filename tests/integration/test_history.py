"""The chain over the events finds whoever changed the log; a release's proof can be checked against the archive."""

import hashlib
from typing import Any, LiteralString

import psycopg
import pytest

from omero_archive.catalogue.history import Chapter, chapters
from omero_archive.catalogue.seals import Chain, verify
from omero_archive.steps.history import proof_lines, sentence
from site_fixtures import Facility, rows_of


def chain(facility: Facility, *, contains: str | None = None) -> Chain:
    with facility.site.catalogue.begin() as connection:
        return verify(connection, contains=contains)


def life(facility: Facility, slug: str = "ics") -> list[Chapter]:
    with facility.site.catalogue.begin() as connection:
        return list(chapters(connection, facility.record(slug).id))


def tamper(facility: Facility, statement: LiteralString, *values: Any) -> None:
    with psycopg.connect(facility.site.catalogue.dsn) as conn:
        assert conn.execute(statement, values).rowcount == 1


@pytest.fixture
def sealed(facility: Facility) -> Facility:
    """A facility with a released bundle, every event sealed."""
    facility.released("ics")
    facility.site.catalogue.seal()
    assert chain(facility).broken is None
    return facility


def test_every_event_is_sealed_once_in_order(sealed: Facility) -> None:
    rows = rows_of(sealed.site.catalogue.dsn, only=["event", "seal"])
    assert sorted(row["position"] for row in rows["seal"]) == list(range(1, len(rows["event"]) + 1))
    assert {row["event_id"] for row in rows["seal"]} == {row["id"] for row in rows["event"]}
    sealed.site.catalogue.seal()
    assert rows_of(sealed.site.catalogue.dsn, only=["seal"])["seal"] == rows["seal"]


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE event SET actor = 'somebody else' WHERE id = %s", "was changed after it was sealed"),
        ('UPDATE event SET detail = \'{"word": "safe!"}\' WHERE id = %s', "was changed after it was sealed"),
        ("UPDATE event SET at = at + interval '1 microsecond' WHERE id = %s", "was changed after it was sealed"),
        ("UPDATE seal SET hash = sha256(hash) WHERE event_id = %s", "was changed after it was sealed"),
        ("DELETE FROM event WHERE id = %s", "was removed from the log"),
        ("DELETE FROM seal WHERE event_id = %s", "events were taken out of the chain before this one"),
    ],
)
def test_whoever_changes_the_log_breaks_the_chain_there(
    sealed: Facility, statement: LiteralString, sentence: str
) -> None:
    victim = sorted(row["id"] for row in rows_of(sealed.site.catalogue.dsn, only=["event"])["event"])[4]
    tamper(sealed, statement, victim)
    broken = chain(sealed).broken
    assert broken is not None
    assert sentence in broken.sentence
    # A seal that was taken out is noticed at the next one.
    assert broken.event_id == victim or statement.startswith("DELETE FROM seal")
    assert broken.position in (5, 6)


def test_a_head_that_was_noted_is_in_the_chain_until_somebody_writes_it_anew(sealed: Facility) -> None:
    head = chain(sealed).head
    sealed.evict("ics")
    sealed.site.catalogue.seal()
    assert chain(sealed, contains=head).contains is True
    assert chain(sealed, contains=head[:12]).contains is True
    with psycopg.connect(sealed.site.catalogue.dsn) as conn:
        conn.execute("UPDATE event SET actor = 'nobody' WHERE id = (SELECT max(id) - 10 FROM event)")
        conn.execute("DELETE FROM seal")
    sealed.evict("ics")  # writes nothing: it is evicted
    sealed.recall("ics")
    sealed.site.catalogue.seal()
    forged = chain(sealed, contains=head)
    assert forged.broken is None
    assert forged.contains is False


def test_what_a_killed_process_left_unsealed_is_sealed_by_the_next(facility: Facility) -> None:
    facility.add("ics")
    with psycopg.connect(facility.site.catalogue.dsn) as conn:  # as if written by a process that died
        columns = "now(), 'killed', bundle_id, 'note'"
        conn.execute(f"INSERT INTO event (at, actor, bundle_id, what) SELECT {columns} FROM event LIMIT 1")
    assert chain(facility).unsealed >= 2
    facility.site.catalogue.seal()
    assert chain(facility).unsealed == 0


def test_the_proof_of_a_release_is_the_digest_of_the_manifest_in_the_archive(sealed: Facility) -> None:
    (proof,) = [chapter.detail for chapter in life(sealed) if chapter.what == "release proof"]
    manifest = sealed.archived_path(f"manifests/{sealed.name('ics')}/manifest-sha256.txt")
    assert proof["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert proof["files"] == len(sealed.demo.fileset("ics").keys)
    (copy,) = proof["copies"]
    assert (copy["service"], copy["files"], copy["words"]) == ("tape", proof["files"], ["safe"])
    assert len(proof["probes"]) == 4
    assert proof["version"]
    assert proof_lines(proof)[0].startswith(f"manifest SHA-256 {proof['manifest_sha256']} stands for 2 files")


def test_an_eviction_has_its_own_proof_with_a_fresh_word(sealed: Facility) -> None:
    sealed.clock.advance(hours=2)
    sealed.evict("ics")
    release, evict = [chapter.detail for chapter in life(sealed) if chapter.what.endswith(" proof")]
    assert evict["copies"][0]["confirmed_from"] > release["copies"][0]["confirmed_to"]
    assert evict["manifest_sha256"] == release["manifest_sha256"]


def test_a_life_is_told_in_sentences_with_files_that_moved_together_as_one(sealed: Facility) -> None:
    sealed.evict("ics")
    sealed.recall("ics")
    sealed.unarchive("ics")
    told = [sentence(chapter) for chapter in life(sealed)]
    wanted = [
        "put under archiving by tester",
        "2 files written to tape; the originals were read once and hashed",
        "2 files on tape read back and compared: equal",
        'tape vouches for 2 files ("safe")',
        "permitted to release: durable copies on tape (2); digest of its manifest",
        "marked archived in OMERO",
        "released: every original is a link now, its bytes near",
        "permitted to evict",
        "evicted: the bytes are only in the archive now",
        "recall asked for by tester",
        "recalled: every file compared, the bytes are near again",
        "the mark in OMERO was taken away",
        "unarchived: every original is back in its place",
        "no longer under archiving: it was unarchived",
    ]
    places = [next(number for number, text in enumerate(told) if text.startswith(start)) for start in wanted]
    assert places == sorted(places)
