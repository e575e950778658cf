"""A host's supervisor: a controller that knows the database, and a zygote that forks agents."""
