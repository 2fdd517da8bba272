"""The long profile, from the command line. What went wrong is printed, and its directory stays."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import build_site
from torture.kills import Violation, torture


def main() -> None:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="oa-torture-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", durable=False)
    server.start()
    try:
        template = build_site(directory / "demo", postgres=server, large_mib=4)
        tally = torture(template, server, directory / "lives", seconds=options.seconds, seed=options.seed)
    except Violation as violation:
        print(violation, flush=True)
        print(f"The directory stays: {directory}", flush=True)
        server.stop()
        sys.exit(1)
    except BaseException:
        server.remove()
        raise
    print(f"kills: {tally}; no violation")
    server.remove()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
