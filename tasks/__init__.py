"""HOW it runs durably: runs, tasks, attempts; claim, complete, retry, reconcile, canvas."""
