from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0007_routes'),
    ]

    operations = [
        migrations.AddField(
            model_name='pool',
            name='autoscale',
            field=models.JSONField(blank=True, help_text='The rule that an operator asked for: min, max, queue_wait_s', null=True),
        ),
        migrations.AlterField(
            model_name='pool',
            name='scaled',
            field=models.IntegerField(blank=True, help_text='Present size by the autoscale rule in force', null=True),
        ),
    ]
