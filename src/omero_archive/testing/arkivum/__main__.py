"""Runs the simulator until it is ended by SIGTERM or Ctrl-C."""

import argparse
import os
import signal
import ssl
import sys
from pathlib import Path

from omero_archive.testing.arkivum.appliance import Appliance, Pace
from omero_archive.testing.arkivum.server import ApplianceServer, Endpoints


def main() -> None:
    """Parse the command line, say where it listens, serve."""
    options = _options()
    # A reader of a file whose bytes are on tape breaks our lease, which is told by a signal that would end us.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pace = Pace(autoclear=options.autoclear_after, recall=options.recall_takes)
    appliance = Appliance(options.dir.resolve(), pace=pace, speed=options.speed, has_leases=True)
    authorization = options.authorization_file and options.authorization_file.read_text().strip()
    folder = os.fsencode("/" + options.folder.strip("/")) if options.folder.strip("/") else b""
    endpoints = Endpoints(appliance=appliance, folder=folder, authorization=authorization)
    server = ApplianceServer(endpoints, options.port)
    scheme = "http"
    if options.certificate is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"{scheme}://{options.name}:{server.server_address[1]}"
    sys.stdout.write(f"url {url}\nmount {appliance.mount}\nfolder {options.folder}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.stdout.write("ended\n")
    finally:
        server.server_close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m omero_archive.testing.arkivum", description="A simulator of the Arkivum appliance."
    )
    parser.add_argument("--dir", type=Path, required=True, help="where its mount and its tapes lie")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any that is free")
    parser.add_argument("--name", default="127.0.0.1", help="the host name in the address that is printed")
    parser.add_argument("--folder", default="/omero", help="where the mount lies in the appliance's own paths")
    parser.add_argument("--speed", type=float, default=1.0, help="how many of its seconds pass in one of ours")
    parser.add_argument("--autoclear-after", type=float, default=Pace().autoclear, help="seconds after FINAL")
    parser.add_argument("--recall-takes", type=float, default=Pace().recall, help="seconds, and 2 for each MiB")
    parser.add_argument("--certificate", type=Path, help="PEM with certificate and key: HTTPS instead of HTTP")
    parser.add_argument(
        "--authorization-file", type=Path, help="its text must be the Authorization header of every request"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
