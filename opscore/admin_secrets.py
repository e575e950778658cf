"""Admin of secrets: values go in and are never shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminPasswordWidget

from opscore import vault
from opscore.admin_site import OurAdmin
from opscore.errors import InvalidError
from opscore.models import Project, Secret


class SecretForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new secret, or a new value for one."""

    value = forms.CharField(
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        strip=False,
        help_text="Nobody can read it here again; tasks get it as ${{ secrets.NAME }}.",
    )

    class Meta:
        model = Secret
        fields = ["project", "name"]

    def clean(self) -> dict[str, Any]:
        """Refuse what cannot be a secret, beside the field that is wrong."""
        said: dict[str, Any] = super().clean() or {}
        name = said.get("name") or self.instance.name
        if name and "value" in said:
            try:
                vault.check(name, said["value"])
            except InvalidError as error:
                for problem in error.problems:
                    self.add_error(problem.path, problem.message)
        return said


@admin.register(Secret)
class SecretAdmin(OurAdmin):
    """Secrets of all projects, without their values."""

    form = SecretForm
    list_display = ["name", "project", "changed_at", "created_at"]
    list_filter = ["project"]
    list_select_related = ["project"]
    search_fields = ["name"]
    ordering = ["name"]
    actions = None

    def get_fields(self, request: HttpRequest, obj: Secret | None = None) -> Any:
        """Show when it was changed, once there is something to change."""
        times = ["created_at", "changed_at"] if obj else []
        return ["project", "name", "value", *times]

    def get_readonly_fields(self, request: HttpRequest, obj: Secret | None = None) -> Any:
        """Lock the name of a secret: workflows know it by that."""
        return ["project", "name", "created_at", "changed_at"] if obj else []

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the default project."""
        return {"project": Project.objects.filter(slug="default").first()}

    def save_model(self, request: HttpRequest, obj: Secret, form: Any, change: bool) -> None:
        """Encrypt the value."""
        value = form.cleaned_data["value"]
        saved, _ = vault.put(obj.project, obj.name, value, request.user.get_username())
        obj.pk = saved.pk

    def delete_model(self, request: HttpRequest, obj: Secret) -> None:
        """Delete it, and say who did."""
        vault.drop(obj.project, obj.name, request.user.get_username())
