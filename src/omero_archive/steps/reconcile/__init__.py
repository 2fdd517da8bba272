"""Reconcile: compares OMERO's database, its disk, near, the services and the catalogue; names each difference.

One module for each place that is looked at, `look` goes through them, `fix` repairs what is safe, `purge` deletes
the copies of one named bundle that OMERO has deleted.
"""
