"""What all admins share: rows of one's own projects, actions for those who may act, a record."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import PasswordInput
from django.http import Http404, HttpRequest, HttpResponse
from unfold.admin import ModelAdmin, TabularInline

from opscore import origin
from opscore.models import Project
from opscore.roles import projects_of

#: Values that no record shows.
_SECRET = ("password", "secret", "digest", "nonce", "token")


class OwnRelatedFilter(admin.RelatedFieldListFilter):
    """A filter by related rows that names those of one's own projects only."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        """Return what may be chosen."""
        rows = limited(request, field.related_model._default_manager.all())  # noqa: SLF001
        return [(row.pk, str(row)) for row in rows]


class RecordedAdmin(ModelAdmin):
    """A page that tells the audit log which projects the changed rows belong to."""

    #: How to get from a row to its project; None: found by itself. Empty: superusers only.
    project_path: str | None = None

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Record a new row."""
        self._tell_projects([obj.pk])
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Record a changed row."""
        self._tell_projects([obj.pk])
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Record rows while they are still there."""
        self._tell_projects([row.pk for row in queryset])
        return super().log_deletions(request, queryset)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Record the rows of an action, while they still are what was selected."""
        rows = queryset
        if request.POST.get("select_across") != "1":
            rows = queryset.filter(pk__in=request.POST.getlist("_selected_action"))
        self._tell_projects(list(rows.values_list("pk", flat=True)))
        return super().response_action(request, queryset)

    def _tell_projects(self, rows: list[Any]) -> None:
        path = _path_of(self.model) if self.project_path is None else self.project_path
        if path:
            found = self.model._default_manager.filter(pk__in=rows)  # noqa: SLF001
            projects = found.order_by().values_list(path, flat=True).distinct()
            origin.current().projects.update(pk for pk in projects if pk is not None)

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponse:
        raise Http404(f"There is no such {opts.verbose_name}.")


class OurAdmin(RecordedAdmin):
    """A page of rows that belong to projects; people see those of the projects they are in."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of one's own projects."""
        rows: QuerySet[Any] = super().get_queryset(request)
        return limited(request, rows, self.project_path)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Have filters by related rows name only those of one's own projects."""
        return [self._own_filter(item) for item in super().get_list_filter(request)]

    def _own_filter(self, item: Any) -> Any:
        if not isinstance(item, str):
            return item
        field: Any = None
        model: Any = self.model
        for part in item.split("__"):
            field = model._meta.get_field(part)  # noqa: SLF001 - Django's documented name
            model = field.related_model
        return (item, OwnRelatedFilter) if isinstance(field, ForeignKey) else item

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        """Offer related rows of one's own projects only."""
        manager = db_field.related_model._default_manager  # noqa: SLF001
        if _path_of(db_field.related_model) is not None:
            kwargs.setdefault("queryset", limited(request, manager.all()))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Tell whether somebody may act on the rows: viewers may not."""
        meta = self.model._meta  # noqa: SLF001 - Django's documented name
        return bool(request.user.has_perm(f"{meta.app_label}.change_{meta.model_name}"))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer, and accept, actions only from those who may act."""
        offered: dict[str, Any] = super().get_actions(request)
        if self.has_operate_permission(request):
            return offered
        return {name: action for name, action in offered.items() if name == "delete_selected"}

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        """Tell the audit log what the fields were and what they are."""
        note_fields(form)
        return super().construct_change_message(request, form, formsets, add)


class ReadOnlyAdmin(OurAdmin):
    """Rows that the engine owns: to look at, not to change."""

    list_per_page = 50
    # Counting a million rows takes longer than to show fifty of them.
    show_full_result_count = False
    list_filter_submit = False
    compressed_fields = True

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Return all fields: Django wants computed ones to be named here."""
        return self.fields or ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the engine makes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: only the engine may change them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: history stays."""
        return False


class ReadOnlyInline(TabularInline):
    """Rows of a page that cannot be changed there."""

    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the engine makes them."""
        return False


def note_fields(form: Any) -> None:
    """Add what a form changes, before and after, to the record of the request."""
    fields = {
        name: [form.initial.get(name), form.cleaned_data.get(name)]
        for name in form.changed_data
        if not any(word in name for word in _SECRET)
        # What the page itself does not show.
        and not isinstance(form.fields[name].widget, PasswordInput)
    }
    if fields:
        origin.current().changes.append({"fields": fields})


def limited(
    request: HttpRequest, rows: QuerySet[Any], project_path: str | None = None
) -> QuerySet[Any]:
    """Return those rows that belong to the person's projects; none where that is unknown."""
    if request.user.is_superuser:
        return rows
    path = _path_of(rows.model) if project_path is None else project_path
    if not path:
        return rows.none()
    return rows.filter(**{f"{path}__in": projects_of(request.user)})


def _path_of(model: type[Model] | Any) -> str | None:
    if model is Project:
        return "pk"
    names = {field.name for field in model._meta.get_fields()}  # noqa: SLF001
    return "project" if "project" in names else None
