from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('opscore', '0003_events_by_task'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='session_id',
            field=models.UUIDField(blank=True, editable=False, help_text='The only agent session that it may act for; such a key goes with its session', null=True),
        ),
        migrations.AddIndex(
            model_name='apikey',
            index=models.Index(condition=models.Q(('session_id__isnull', False)), fields=['session_id'], name='key_of_session'),
        ),
    ]
