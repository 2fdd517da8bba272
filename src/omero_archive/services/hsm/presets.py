"""The systems that are known, as tables: which command tells where files are, which one brings them back.

What of this was read in public documents and what was not is told in docs/howto/posix-hsm.md. None was tried on the
real system.
"""

from dataclasses import dataclass

from omero_archive.services.hsm import parsers
from omero_archive.services.hsm.parsers import Parser
from omero_archive.services.programs import LIST, Command, Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One system's commands and parsers.

    `status` is asked about `at_most` files at once, all in one directory where `one_directory` is set. `recall`
    brings files back; None where the system has no command of its own for it. `recalling` tells which of the offline
    files are on their way. `tells_durability`: whether the status says that a content is on tape.
    """

    status: Command
    parse: Parser
    recall: Command | None
    recalling: Command | None = None
    parse_recalling: Parser | None = None
    at_most: int | None = None
    one_directory: bool = False
    tells_durability: bool = True


PRESETS: dict[str, Preset] = {
    "lustre": Preset(
        status=Command(argv=("lfs", "hsm_state")),
        parse=parsers.lustre,
        recall=Command(argv=("lfs", "hsm_restore")),
        recalling=Command(argv=("lfs", "hsm_action")),
        parse_recalling=parsers.lustre_recalling,
    ),
    "spectrum-archive": Preset(
        status=Command(argv=("/opt/ibm/ltfsee/bin/eeadm", "file", "state", "-s")),
        parse=parsers.spectrum_archive,
        recall=Command(argv=("/opt/ibm/ltfsee/bin/eeadm", "recall"), feed=Feed.LIST),
    ),
    "protect": Preset(
        status=Command(argv=("dsmls",)),
        parse=parsers.protect,
        recall=Command(argv=("dsmrecall", f"-filelist={LIST}"), feed=Feed.LIST),
        one_directory=True,
    ),
    "dmf": Preset(
        status=Command(argv=("dmls", "-ld")),
        parse=parsers.dmf,
        recall=Command(argv=("dmget", "-q")),
    ),
    "scoutfs": Preset(
        status=Command(argv=("scoutfs", "stat")),
        parse=parsers.scoutfs,
        recall=None,  # `scoutfs stage` wants the archived bytes themselves; ScoutAM and the sites have commands
        at_most=1,
        tells_durability=False,
    ),
}
