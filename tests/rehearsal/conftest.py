from __future__ import annotations

from workflows.testing import rehearsal as rehearsal
