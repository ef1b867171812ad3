# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Synapse would work out anew for every event and every configuration, and what stays the same, once."""

from __future__ import annotations

from typing import Any

import jinja2
import jsonschema
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for


def check_schemas_once() -> None:
    """As jsonschema itself validates, which first validates the schema, each time."""
    checked: dict[int, Any] = {}

    def validate(instance: Any, schema: Any, cls: Any = None) -> None:
        validator = cls or validator_for(schema)
        if id(schema) not in checked:
            validator.check_schema(schema)
            checked[id(schema)] = schema
        error = best_match(validator(schema).iter_errors(instance))
        if error is not None:
            raise error

    jsonschema.validate = validate


def compile_templates_once() -> None:
    compiled: dict[Any, Any] = {}
    as_shipped = jinja2.Environment.compile

    def compile_once(environment: Any, source: Any, *arguments: Any) -> Any:
        key = (environment.autoescape, source, *arguments)
        if key not in compiled:
            compiled[key] = as_shipped(environment, source, *arguments)
        return compiled[key]

    jinja2.Environment.compile = compile_once  # type: ignore[assignment, method-assign]
