"""Admin pages of pools, and of what agents use and write."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from agents import pools
from agents.models import AgentOutput, AgentUsage, Endpoint, Pool
from opscore.admin import ReadOnlyAdmin, block, link, moment
from opscore.sizes import shown_size


class PoolForm(forms.ModelForm):  # type: ignore[type-arg]
    """How many agents of a spec a host should keep."""

    class Meta:
        model = Pool
        fields = ["host", "spec", "replicas"]

    def clean(self) -> Any:
        """Refuse a spec that the host does not offer, and a number that is none."""
        said = super().clean() or self.cleaned_data
        host, spec = (
            said.get("host", self.instance.host_id and self.instance.host),
            said.get("spec"),
        )
        if host is not None and spec is not None and spec not in host.specs:
            known = ", ".join(sorted(host.specs)) or "none"
            raise forms.ValidationError({"spec": f"{host} offers no such spec (it has: {known})."})
        if not 0 <= (said.get("replicas") or 0) <= pools.MAX_REPLICAS:
            problem = f"0 to {pools.MAX_REPLICAS}; empty: the host's file decides."
            raise forms.ValidationError({"replicas": problem})
        return said


@admin.register(Pool)
class PoolAdmin(ModelAdmin):
    """Sizes of pools: set here, also where the host's file says otherwise."""

    form = PoolForm
    list_display = ["spec", "host", "replicas", "scaled", moment("changed_at", "changed")]
    list_filter = ["host"]
    search_fields = ["spec", "host__name"]
    ordering = ["host__name", "spec"]

    def get_readonly_fields(self, request: HttpRequest, obj: Pool | None = None) -> Any:
        """Lock which pool it is."""
        return ["host", "spec"] if obj else []

    def save_model(self, request: HttpRequest, obj: Pool, form: Any, change: bool) -> None:
        """Resize the pool."""
        kept = pools.scale(obj.host, obj.spec, obj.replicas, request.user.get_username())
        obj.pk = kept.pk

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: an empty number does the same, and is kept as an event."""
        return False


@admin.register(AgentUsage)
class AgentUsageAdmin(ReadOnlyAdmin):
    """Memory and CPU of agents."""

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

    list_display = ["url", "shown_agent", "concurrency", "timeout_s", "health_path"]
    search_fields = ["url", "agent__name"]
    list_select_related = ["agent"]
    ordering = ["agent__name"]
    fields = list_display

    @display(description="agent", ordering="agent__name")
    def shown_agent(self, endpoint: Endpoint) -> str:
        """Link to the agent."""
        return link(endpoint.agent)
