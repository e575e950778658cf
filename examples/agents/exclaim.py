"""An agent in Python with the SDK: it does tasks of the capability `exclaim`.

Inputs: text, and seconds (how long it takes, default 0). OPSCORE_API_URL and OPSCORE_API_KEY
(scope agent; admin too, unless it is registered) say where the platform is; OPSCORE_AGENT_NAME may
name it.
"""

from __future__ import annotations

import os
from typing import Any

from opscore_sdk import Agent, Context, TaskError

agent = Agent(os.environ.get("OPSCORE_AGENT_NAME", "exclaimer-py"), concurrency=4)


@agent.task("exclaim")
def exclaim(inputs: dict[str, Any], context: Context) -> dict[str, Any]:
    """Say it with more force."""
    if not isinstance(inputs.get("text"), str):
        raise TaskError("no_text", "there is nothing to exclaim", retryable=False)
    context.log("exclaiming")
    for step in range(4):
        context.progress(step / 4, "taking breath")
        context.wait_cancelled(inputs.get("seconds", 0) / 4)
        context.check()
    return {"text": f"{inputs['text']}!"}


if __name__ == "__main__":
    agent.run()
