"""Triggers that write a delivery in the transaction of what it tells of.

So none is missed, whoever writes and whenever it commits. A project without a webhook pays one
look into its index for each event, end of a run and completed task.
"""

from __future__ import annotations

from django.db import migrations

# `*` in a pattern is any rest: LIKE knows `_` too, which stands in names.
_TELL = r"""
CREATE FUNCTION webhooks_tell(
    the_project bigint, the_kind text, the_time timestamptz,
    the_run uuid, the_task uuid, the_agent uuid, the_actor text, the_details jsonb)
RETURNS void LANGUAGE plpgsql SET timezone TO 'UTC' AS $$
BEGIN
    INSERT INTO webhooks_delivery (webhook_id, event, payload)
    SELECT w.id, the_kind, jsonb_build_object(
        'type', the_kind,
        'timestamp', the_time,
        'data', jsonb_build_object(
            'project', p.slug,
            'run', CASE WHEN r.id IS NOT NULL THEN jsonb_build_object(
                'id', r.id, 'workflow', r.workflow, 'version', r.version, 'status', r.status,
                'parent_task_id', r.parent_task_id, 'created_at', r.created_at,
                'completed_at', r.completed_at) END,
            'task', CASE WHEN t.id IS NOT NULL THEN jsonb_build_object(
                'id', t.id, 'key', t.key, 'uses', t.uses, 'capability', t.capability,
                'status', t.status, 'attempt', t.attempt) END,
            'agent', CASE WHEN a.id IS NOT NULL THEN jsonb_build_object(
                'id', a.id, 'name', a.name, 'status', a.status) END,
            'actor', the_actor,
            'details', CASE WHEN length(the_details::text) > 16384
                            THEN '{"truncated": true}'::jsonb ELSE the_details END))
      FROM webhooks_webhook w
      JOIN opscore_project p ON p.id = w.project_id
      LEFT JOIN tasks_task t ON t.id = the_task
      LEFT JOIN tasks_run r ON r.id = COALESCE(the_run, t.run_id)
      LEFT JOIN agents_agent a ON a.id = the_agent
     WHERE w.project_id = the_project AND w.enabled
       AND (w.workflow = '' OR w.workflow = r.workflow)
       AND EXISTS (SELECT FROM unnest(w.events) AS pattern
                    WHERE the_kind LIKE replace(replace(pattern, '_', '\_'), '*', '%'));
END $$;
"""

_TRIGGER = """
CREATE FUNCTION webhooks_on_{name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks_webhook w WHERE w.project_id = NEW.project_id AND w.enabled)
    THEN
        PERFORM webhooks_tell(NEW.project_id, {told});
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER webhooks_{name} AFTER {when} EXECUTE FUNCTION webhooks_on_{name}();
"""
_NO_TRIGGER = """
DROP TRIGGER webhooks_{name} ON {table};
DROP FUNCTION webhooks_on_{name}();
"""

# That a run was cancelled is told once, when it has ended.
_EVENT = _TRIGGER.format(
    name="event",
    told="NEW.kind, NEW.at, NEW.run_id, NEW.task_id, NEW.agent_id, NEW.actor, NEW.data",
    when="INSERT ON opscore_event FOR EACH ROW WHEN (NEW.kind <> 'run.cancelled')",
)
_RUN = _TRIGGER.format(
    name="run",
    told="'run.' || NEW.status, NEW.completed_at, NEW.id, NULL, NULL, '',"
    " COALESCE(NEW.error, '{}')",
    when="UPDATE OF status ON tasks_run FOR EACH ROW WHEN (NEW.status <> OLD.status"
    " AND NEW.status IN ('completed', 'failed', 'cancelled'))",
)
# What has failed or was lost is an event anyway.
_TASK = _TRIGGER.format(
    name="task",
    told="CASE NEW.status WHEN 'completed' THEN 'task.completed' ELSE 'approval.requested' END,"
    " COALESCE(NEW.completed_at, clock_timestamp()), NEW.run_id, NEW.id, NULL, '',"
    " CASE NEW.status WHEN 'completed' THEN '{}' ELSE COALESCE(NEW.names->'approval', '{}') END",
    when="UPDATE OF status ON tasks_task FOR EACH ROW WHEN (NEW.status <> OLD.status AND"
    " (NEW.status = 'completed' OR NEW.status = 'waiting' AND NEW.waits_for = 'approval'))",
)


class Migration(migrations.Migration):
    """Functions and triggers only; going back drops no delivery."""

    dependencies = [("webhooks", "0001_initial"), ("tasks", "0010_names")]
    operations = [
        migrations.RunSQL(_TELL, "DROP FUNCTION webhooks_tell"),
        migrations.RunSQL(_EVENT, _NO_TRIGGER.format(name="event", table="opscore_event")),
        migrations.RunSQL(_RUN, _NO_TRIGGER.format(name="run", table="tasks_run")),
        migrations.RunSQL(_TASK, _NO_TRIGGER.format(name="task", table="tasks_task")),
    ]
