"""What is measured by tests.bench.growth, with Django set up."""

from __future__ import annotations

import time
from pathlib import Path

from django.core.management import call_command
from django.db import connection

from agents import registry, runtime, sessions
from agents.handlers import Context, Handler
from opscore.database import query
from opscore.models import Project
from tasks.execution import execute
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.retention import Rule, retire
from tasks.submission import start_run

LENGTH = 10
THOUSANDS = 5
#: Lines that a talkative task logs.
LINES = 10

_SIZES = """
SELECT relname AS name, n_live_tup AS rows, pg_table_size(relid) AS heap,
       pg_indexes_size(relid) AS indexes
  FROM pg_stat_user_tables WHERE schemaname = 'public'
"""


def measure(archive: Path) -> None:
    """Run 1,000 tasks to warm up, then some thousands of each kind, and print what they added."""
    call_command("migrate", verbosity=0)
    project = Project.objects.get(slug="default")
    agent = registry.register(project, name="bench", kind="remote", capabilities=["work"])[0]
    handlers: dict[str, Handler] = {"work": _work}
    runtime.begin(runtime.Life(sessions.start(agent).id, "bench", handlers))
    _thousand(project)
    _growth(project, "small results")
    handlers["work"] = _talk
    _growth(project, f"the same with {LINES} log lines a task")
    _deletion("deleted", None)
    handlers["work"] = _work
    _growth(project, "small results, in the space of what was deleted")
    _deletion("archived and deleted", archive)
    size = sum(file.stat().st_size for file in archive.iterdir())
    print(f"archive: {size / THOUSANDS / 1024:.0f} KiB per 1,000 tasks")


def _growth(project: Project, title: str) -> None:
    before = _sizes()
    for _ in range(THOUSANDS):
        _thousand(project)
    _print_growth(before, _sizes(), title)


def _work(task: Context) -> dict[str, object]:
    """Return what a small agent returns."""
    return {"ok": True, "step": task.key, "score": 0.87, "summary": "nothing to complain about"}


def _talk(task: Context) -> dict[str, object]:
    """Log some lines too."""
    line = "looked at another file of the repository and found nothing to complain about"
    task.log("\n".join(f"{number}: {line}" for number in range(LINES)))
    return _work(task)


def _thousand(project: Project) -> None:
    for _ in range(1000 // LENGTH):
        _finish(start_run(project, _chain(), inputs={"repo": "example"}, workflow="growth"))


def _chain() -> Graph:
    first = Node(key="t0", capability="work", inputs={"repo": "${{ inputs.repo }}"})
    later = [
        Node(
            key=f"t{n}",
            capability="work",
            needs=(f"t{n - 1}",),
            inputs={"before": f"${{{{ tasks.t{n - 1}.result.summary }}}}"},
        )
        for n in range(1, LENGTH)
    ]
    return Graph.of([first, *later], {"summary": f"${{{{ tasks.t{LENGTH - 1}.result }}}}"})


def _finish(run: Run) -> None:
    tasks = list(run.tasks.order_by("number").values_list("id", "number"))
    for task_id, number in tasks:
        # The next one is carried: nothing waits in the broker.
        execute(task_id, 1, [number + 1])


def _sizes() -> dict[str, tuple[int, int]]:
    # What autovacuum does all the time on a busy server: space of old row versions is used again.
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return {row["name"]: (row["heap"], row["indexes"]) for row in query(_SIZES, {})}


def _print_growth(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], title: str
) -> None:
    print(f"\n{title}\n{'KiB per 1,000 tasks':32}      rows   indexes")
    total = 0.0
    for name in sorted(after):
        rows, indexes = (
            (now - then) / THOUSANDS / 1024
            for now, then in zip(after[name], before[name], strict=True)
        )
        total += rows + indexes
        if rows or indexes:
            print(f"{name:32} {rows:9.0f} {indexes:9.0f}")
    print(f"{'together':32} {total:9.0f}", flush=True)


def _deletion(title: str, archive: Path | None) -> None:
    thousands = Task.objects.exclude(uses="end").count() / 1000
    Run.objects.update(completed_at="2020-01-01T00:00Z")
    steps: list[tuple[bool, float]] = []
    while not steps or steps[-1][0]:
        began = time.monotonic()
        more = retire(Rule(("completed",), 30), archive)
        steps.append((more, (time.monotonic() - began) * 1000))
    times = [spent for _, spent in steps]
    print(
        f"\n{title}: {sum(times) / thousands:.0f} ms per 1,000 tasks,"
        f" longest batch {max(times):.0f} ms"
    )
