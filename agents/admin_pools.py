"""Admin pages of pools, and of what agents use and write."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
)

from agents import pools
from agents.autoscale import Autoscale
from agents.models import AgentOutput, AgentUsage, Endpoint, Host, Pool
from opscore.admin_columns import block, link, moment
from opscore.admin_site import OurAdmin, ReadOnlyAdmin
from opscore.sizes import shown_size


class PoolForm(forms.ModelForm):  # type: ignore[type-arg]
    """How many agents of a spec a host should keep."""

    least = forms.IntegerField(
        required=False,
        min_value=0,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="By a rule instead: at least so many agents",
    )
    most = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=pools.MAX_REPLICAS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="at most so many",
    )
    queue_wait_s = forms.FloatField(
        required=False,
        min_value=0.1,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="more when a task has waited so many seconds",
    )

    class Meta:
        model = Pool
        fields = ["host", "spec", "replicas"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "spec" in self.fields:
            offered = sorted({spec for host in Host.objects.all() for spec in host.specs})
            self.fields["spec"].widget = UnfoldAdminSelectWidget(
                choices=[("", "–"), *((spec, spec) for spec in offered)]
            )
        if rule := self.instance.autoscale:
            shown = {"least": rule["min"], "most": rule["max"]}
            self.initial = {**self.initial, **shown, "queue_wait_s": rule["queue_wait_s"]}

    @property
    def rule(self) -> Autoscale | None:
        """The rule that was asked for; None: none."""
        said = self.cleaned_data
        if any(said.get(name) is None for name in ("least", "most", "queue_wait_s")):
            return None
        return Autoscale(said["least"], said["most"], said["queue_wait_s"])

    def clean(self) -> Any:
        """Refuse a spec that the host does not offer, and sizes that are none."""
        said = self._check_place()
        parts = [said.get(name) is not None for name in ("least", "most", "queue_wait_s")]
        if any(parts) and not all(parts):
            raise forms.ValidationError({"most": "A rule needs all three: least, most, wait."})
        if all(parts) and said.get("replicas") is not None:
            raise forms.ValidationError({"replicas": "Either a number or a rule; empty one."})
        if all(parts) and said["least"] > said["most"]:
            raise forms.ValidationError({"least": "This is above the most."})
        return said

    def _check_place(self) -> Any:
        said = super().clean() or self.cleaned_data
        host, spec = (
            said.get("host", self.instance.host_id and self.instance.host),
            said.get("spec"),
        )
        if host is not None and spec is not None and spec not in host.specs:
            known = ", ".join(sorted(host.specs)) or "none"
            raise forms.ValidationError({"spec": f"{host} offers no such spec (it has: {known})."})
        largest = pools.largest(host, spec) if host is not None and spec else pools.MAX_REPLICAS
        for name in ("replicas", "most"):
            if not 0 <= (said.get(name) or 0) <= largest:
                problem = f"0 to {largest}; empty: the host's file decides."
                raise forms.ValidationError({name: problem})
        return said


@admin.register(Pool)
class PoolAdmin(OurAdmin):
    """Sizes of pools: set here, also where the host's file says otherwise."""

    project_path = "host__project"
    form = PoolForm
    list_display = ["spec", "host", "replicas", "rule", "scaled", moment("changed_at", "changed")]
    list_filter = ["host"]
    search_fields = ["spec", "host__name"]
    ordering = ["host__name", "spec"]

    @display(description="rule")
    def rule(self, pool: Pool) -> str:
        """Show the rule that an operator set."""
        said = pool.autoscale
        return f"{said['min']} to {said['max']}, {said['queue_wait_s']:g} s" if said else ""

    def get_readonly_fields(self, request: HttpRequest, obj: Pool | None = None) -> Any:
        """Lock which pool it is."""
        return ["host", "spec"] if obj else []

    def save_model(self, request: HttpRequest, obj: Pool, form: Any, change: bool) -> None:
        """Resize the pool."""
        actor = request.user.get_username()
        if form.rule is not None:
            kept = pools.set_rule(obj.host, obj.spec, form.rule, actor)
        else:
            kept = pools.scale(obj.host, obj.spec, obj.replicas, actor)
        obj.pk = kept.pk

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: an empty number does the same, and is kept as an event."""
        return False


@admin.register(AgentUsage)
class AgentUsageAdmin(ReadOnlyAdmin):
    """Memory and CPU of agents."""

    project_path = "agent__project"
    list_display = ["agent", "shown_memory", "cpu_percent", moment("sampled_at", "sampled")]
    search_fields = ["agent__name"]
    ordering = ["-memory"]
    fields = ["agent", "shown_memory", "cpu_percent", moment("sampled_at", "sampled")]

    @display(description="memory", ordering="memory")
    def shown_memory(self, usage: AgentUsage) -> str:
        """Show it in MiB."""
        return shown_size(usage.memory)


@admin.register(AgentOutput)
class AgentOutputAdmin(ReadOnlyAdmin):
    """Ends of what agents wrote, as last told by their supervisors."""

    project_path = "agent__project"
    list_display = ["agent", moment("written_at", "told")]
    search_fields = ["agent__name"]
    ordering = ["agent__name"]
    fields = ["agent", moment("asked_at", "asked"), moment("written_at", "told"), "shown_text"]

    @display(description="output")
    def shown_text(self, kept: AgentOutput) -> str:
        """Show the lines as they were written."""
        return block(kept.text)


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    """Where agents of kind http take their tasks."""

    project_path = "agent__project"
    list_display = ["url", "shown_agent", "timeout_s", "health_path"]
    search_fields = ["url", "agent__name"]
    list_select_related = ["agent"]
    ordering = ["agent__name"]
    fields = list_display

    @display(description="agent", ordering="agent__name")
    def shown_agent(self, endpoint: Endpoint) -> str:
        """Link to the agent."""
        return link(endpoint.agent)
