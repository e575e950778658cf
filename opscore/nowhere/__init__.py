"""The database of a process that was told of none: Django knows its kind, but it never connects."""
