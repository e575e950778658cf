"""WHAT to run: definitions, versions, validation."""
