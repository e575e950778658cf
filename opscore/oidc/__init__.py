"""Logging in to the pages with an account of the company (OpenID Connect). See docs/security.md."""
