"""What OMERO knows: its database, its repository, its marks, and whether it is off."""
