from django.db import migrations, models

_END_DOUBLES = """
UPDATE agents_agentsession s SET ended_at = now(), end_reason = 'replaced by a newer session'
WHERE s.ended_at IS NULL AND EXISTS (
    SELECT 1 FROM agents_agentsession newer
    WHERE newer.agent_id = s.agent_id AND newer.ended_at IS NULL AND newer.id > s.id)"""


class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='agent',
            name='paused',
            field=models.BooleanField(db_default=False, default=False, help_text='It takes nothing new and finishes what it has'),
        ),
        migrations.RunSQL(_END_DOUBLES, migrations.RunSQL.noop),
        migrations.RemoveIndex(
            model_name='agentsession',
            name='session_live',
        ),
        migrations.AddConstraint(
            model_name='agentsession',
            constraint=models.UniqueConstraint(condition=models.Q(('ended_at__isnull', True)), fields=('agent',), name='one_live_session'),
        ),
        migrations.RunSQL("DELETE FROM agents_queue WHERE labels = '{}'", migrations.RunSQL.noop),
    ]
