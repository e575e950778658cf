"""WHO ELSE is told what happens: signed requests to addresses of others, tried again, on record."""
