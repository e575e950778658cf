from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("opscore", "0005_secrets"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="agent_id",
            field=models.UUIDField(
                blank=True, editable=False, help_text="The only agent that it may act as", null=True
            ),
        ),
    ]
