"""The frame of the HTTP API: authentication, errors, paging, idempotency."""
