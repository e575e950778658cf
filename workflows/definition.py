"""Definitions of workflows: text or data in, a checked value out. One model for YAML and JSON.

`python -m workflows.definition > docs/workflow.schema.json` writes the schema for editors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Literal

from opscore.documents import Document, read
from workflows.fields import json_schema
from workflows.reading import definition_of
from workflows.spec import Block, Definition, TaskSpec


def parse(text: str | bytes, *, media_type: Literal["yaml", "json"] = "yaml") -> Definition:
    """Return the definition that a YAML or JSON text says.

    Raises InvalidError with every problem, each with path, line and, where a word seems
    misspelt, a suggestion; TooLargeError for a text above 4 MiB.
    """
    return definition_of(read(text, media_type))


def from_data(data: Mapping[str, Any]) -> Definition:
    """Return the definition that JSON data says, as `Definition.as_dict` gives it.

    Raises InvalidError with paths, but knows no lines.
    """
    return definition_of(Document(dict(data)))


def block_of(data: Mapping[str, Any]) -> Block:
    """Return the block that JSON data says, as `Block.as_dict` and `Flow.block` give it.

    Nothing is known about its inputs here: what they are was checked with the definition.
    """
    whole = definition_of(Document({"name": "block", **data}))
    return Block(whole.tasks, whole.outputs)


__all__ = ["Block", "Definition", "TaskSpec", "block_of", "from_data", "json_schema", "parse"]

if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
