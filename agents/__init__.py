"""WHO runs it: registry, sessions, health, supervisor, the kinds of agents."""
