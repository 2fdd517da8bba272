"""`python -m omero_archive`: the same as the command `omero-archive`."""

from omero_archive.cli.main import main

if __name__ == "__main__":
    main()
