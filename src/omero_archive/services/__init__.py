"""The archive services that come with omero-archive, one module each."""
