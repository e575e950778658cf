"""An agent in Python with the SDK: it does tasks of the capability `shout`.

Inputs: text, and seconds (how long it takes, default 0). OPSCORE_API_URL and OPSCORE_API_KEY
(scopes agent and admin) say where the platform is; OPSCORE_AGENT_NAME may name it.
"""

from __future__ import annotations

import os
from typing import Any

from opscore_sdk import Agent, Context, TaskError

agent = Agent(os.environ.get("OPSCORE_AGENT_NAME", "shouter-py"), concurrency=4)


@agent.task("shout")
def shout(inputs: dict[str, Any], context: Context) -> dict[str, Any]:
    """Say it louder."""
    if not isinstance(inputs.get("text"), str):
        raise TaskError("no_text", "there is nothing to shout", retryable=False)
    context.log("shouting")
    for step in range(4):
        context.progress(step / 4, "taking breath")
        context.wait_cancelled(inputs.get("seconds", 0) / 4)
        context.check()
    return {"text": f"{inputs['text']}!"}


if __name__ == "__main__":
    agent.run()
