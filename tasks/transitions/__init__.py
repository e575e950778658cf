"""Every statement that writes the status of a task or a run; each is one transaction by itself.

Rules that hold in all of them (docs/decisions.md says why):
- A row changes by compare-and-set on its source status, as `tasks.states` allows.
- Locks are taken in one order: task rows ascending by (run, number), then run rows ascending.
- Time is the database's; workers' clocks are never compared.
- `hinted_at` is the outbox: what is queued and was hinted too long ago is sent again.
"""
