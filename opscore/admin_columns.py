"""Columns of admin pages, and how they show times, statuses, JSON and links."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import display

from opscore import vault

#: Colours of status words, the same on every page.
_COLOURS = {
    "completed": "green",
    "active": "green",
    "usable": "green",
    "delivered": "green",
    "live": "green",
    "running": "blue",
    "busy": "blue",
    "starting": "blue",
    "sending": "blue",
    "initializing": "blue",
    "queued": "primary",
    "created": "primary",
    "retrying": "orange",
    "waiting": "orange",
    "paused": "orange",
    "cancelling": "orange",
    "draining": "orange",
    "restarting": "orange",
    "expired": "orange",
    "silent": "orange",
    "lost": "orange",
    "failed": "red",
    "timeout": "red",
    "error": "red",
    "unresponsive": "red",
    "revoked": "red",
    "disabled": "red",
    "open": "red",
    "half_open": "orange",
}
_LONGEST = 20_000


def badge(word: str) -> SafeString:
    """Return a status word as a coloured label."""
    colour = _COLOURS.get(word)
    # Classes that Unfold's own labels use: others are not in its style sheet.
    tone = (
        f"bg-{colour}-100 text-{colour}-700 dark:bg-{colour}-500/20 dark:text-{colour}-400"
        if colour
        else "bg-base-500/8 text-base-700 dark:bg-base-500/20 dark:text-base-200"
    )
    shape = "inline-block font-semibold rounded-default text-[11px] uppercase whitespace-nowrap h-6 leading-6 px-2"
    return format_html('<span class="{} {}">{}</span>', shape, tone, word)


def moment(field: str, title: str) -> Callable[[Any], SafeString | str]:
    """Return a column that shows a time to the second, on one line."""

    @display(description=title, ordering=field)
    def shown(row: Any) -> SafeString | str:
        at = getattr(row, field)
        return "–" if at is None else whole(f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}")

    return shown


def label(field: str, title: str) -> Callable[[Any], SafeString]:
    """Return a column that shows a status word as a label."""

    @display(description=title, ordering=field)
    def shown(row: Any) -> SafeString:
        return badge(getattr(row, field))

    return shown


def readable(field: str, title: str = "") -> Callable[[Any], SafeString | str]:
    """Return a column that shows a JSON value, readable."""

    @display(description=title or field)
    def shown(row: Any) -> SafeString | str:
        return pretty(getattr(row, field))

    return shown


def masked(field: str) -> Callable[[Any], SafeString | str]:
    """Return the same column without the secrets of the row's project, for what is kept with them."""

    @display(description=field)
    def shown(row: Any) -> SafeString | str:
        return pretty(vault.redactor(row.run.project_id).data(getattr(row, field)))

    return shown


@display(description="error")
def failure(row: Any) -> str:
    """Show why it failed: a column."""
    return message_of(row.error)


def whole(text: str) -> SafeString:
    """Return text that is never broken into two lines."""
    return format_html('<span style="white-space:nowrap">{}</span>', text)


def pretty(value: Any) -> SafeString | str:
    """Return a JSON value as a readable block; '–' when there is none."""
    if value in (None, {}, []):
        return "–"
    text = json.dumps(value, indent=2, ensure_ascii=False)
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… {len(text)} characters"
    return block(cut)


def block(text: str) -> SafeString:
    """Return text as it is, in a fixed font, scrolling inside its own box."""
    return format_html(
        '<pre style="max-height:28rem;overflow:auto;white-space:pre-wrap;'
        'font-size:12px;line-height:1.5;margin:0">{}</pre>',
        text,
    )


def lines(texts: Iterable[str]) -> SafeString | str:
    """Return texts, each on a line of its own; '–' when there is none."""
    return format_html_join(mark_safe("<br>"), "{}", ((text,) for text in texts)) or "–"


def link(row: Model | None, text: str = "") -> SafeString | str:
    """Return a link to a row's page in the admin; '–' when there is none."""
    if row is None:
        return "–"
    meta = row._meta  # noqa: SLF001 - Django's documented name
    address = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    style = "text-primary-600 dark:text-primary-500 whitespace-nowrap"
    return format_html('<a class="{}" href="{}">{}</a>', style, address, text or str(row))


def short(value: Any) -> str:
    """Return the tail of an id: the head of a UUIDv7 is the time and looks the same."""
    # A word joiner, so that the dots stay on the line of the digits.
    return f"…\N{WORD JOINER}{str(value)[-12:]}" if value else "–"


def duration(start: datetime | None, end: datetime | None) -> str:
    """Return seconds from start to end, or until now; '–' when it has not begun."""
    if start is None:
        return "–"
    return f"{((end or timezone.now()) - start).total_seconds():.2f}\N{NO-BREAK SPACE}s"


def message_of(error: Any) -> str:
    """Return the words of a structured error; '–' when there is none."""
    return str(error.get("message", ""))[:200] if isinstance(error, dict) else "–"
