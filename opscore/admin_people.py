"""Admin pages of the people who may log in, and of the projects they are members of."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from opscore.admin_site import OurAdmin, ReadOnlyAdmin, RecordedAdmin, note_fields
from opscore.models import Membership, OidcIdentity
from opscore.roles import groups_of, may_manage, people_of

admin.site.unregister(User)
admin.site.unregister(Group)
#: Whoever could set these could make himself a superuser.
_HIGHEST = ["is_superuser", "user_permissions"]


@admin.register(User)
class UserAdmin(StockUserAdmin, RecordedAdmin):  # type: ignore[type-arg]
    """People who may log in here. Their groups say what they may do, their projects where."""

    project_path = "membership__project"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the people of one's own projects, and those who are in none."""
        return super().get_queryset(request).filter(pk__in=people_of(request.user).values("pk"))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer no group that may more than whoever puts somebody into it."""
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.name == "groups" and field is not None:
            field.queryset = groups_of(request.user)
        return field

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Lock what would make a superuser, except for superusers."""
        stock = super().get_readonly_fields(request, obj)
        return stock if request.user.is_superuser else [*stock, *_HIGHEST]

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Refuse superusers and people of foreign projects, except to superusers."""
        may = bool(super().has_change_permission(request, obj))
        return may and (obj is None or may_manage(request.user, obj))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Refuse the same."""
        may = bool(super().has_delete_permission(request, obj))
        return may and (obj is None or may_manage(request.user, obj))

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        """Tell the audit log what the fields were and what they are, passwords apart."""
        note_fields(form)
        return super().construct_change_message(request, form, formsets, add)


@admin.register(Group)
class GroupAdmin(StockGroupAdmin, ModelAdmin):
    """Groups of people; viewer, operator and admin are kept as they are by `migrate`."""


@admin.register(Membership)
class MembershipAdmin(OurAdmin):
    """Who sees which project."""

    list_display = ["user", "project", "created_at"]
    list_filter = ["project"]
    search_fields = ["user__username", "project__slug"]
    list_select_related = ["user", "project"]
    ordering = ["-id"]
    fields = ["user", "project"]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer the people that one sees."""
        if db_field.name == "user":
            kwargs.setdefault("queryset", people_of(request.user))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Membership | None = None) -> bool:
        """Refuse: a membership is made and removed."""
        return False


@admin.register(OidcIdentity)
class OidcIdentityAdmin(ReadOnlyAdmin):
    """Whom the provider of OpenID Connect means by a subject. Superusers only."""

    project_path = ""
    list_display = ["user", "issuer", "subject", "created_at"]
    search_fields = ["user__username", "subject"]
    list_select_related = ["user"]
    ordering = ["-id"]
    fields = list_display
