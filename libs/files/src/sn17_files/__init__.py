"""Files that are whole or not there: written beside, synced to the disk, renamed."""

from sn17_files.atomic import publish, write_atomically

__all__ = ["publish", "write_atomically"]
