"""The audit log: who did what from where; append-only, sealed into a chain of hashes."""
