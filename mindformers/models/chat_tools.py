"""Tools of a chat: the JSON schema that a template shows the model, from a dict or a typed Python function."""
import inspect
import re
import types
import typing
from collections.abc import Mapping

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "object",
               list: "array", tuple: "array"}


def tool_schema(tool):
    """Return the JSON schema of a tool: a dict as it is, a function from its type hints and docstring.

    Raises:
        TypeError: neither a dict nor a function.
        ValueError: a function without a docstring or with a parameter that has no type hint.
    """
    if isinstance(tool, Mapping):
        return tool
    if not callable(tool):
        raise TypeError(f"a tool must be a JSON schema (dict) or a function, but got {type(tool).__name__}: {tool!r}")
    summary, described, returned = _read_docstring(tool)
    hints = typing.get_type_hints(tool)
    properties, required = {}, []
    for name, parameter in inspect.signature(tool).parameters.items():
        if name not in hints:
            raise ValueError(f"parameter {name!r} of tool {tool.__name__} has no type hint, which its schema needs")
        if name not in described:
            raise ValueError(f"parameter {name!r} of tool {tool.__name__} is not described under Args: in its "
                             f"docstring")
        properties[name] = {**type_schema(hints[name]), "description": described[name]}
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
    parameters = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    function = {"name": tool.__name__, "description": summary, "parameters": parameters}
    if "return" in hints:
        function["return"] = type_schema(hints["return"])
        if returned:
            function["return"]["description"] = returned
    return {"type": "function", "function": function}


def type_schema(hint):
    """Return the JSON schema of a type hint: plain types, Optional, Union, Literal, list[...], dict[...]."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _JSON_TYPES:
        return {"type": _JSON_TYPES[hint]}
    if origin is typing.Literal:
        kinds = sorted({_JSON_TYPES[type(value)] for value in arguments})
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        schemas = [type_schema(argument) for argument in arguments if argument is not type(None)]
        if len(schemas) == 1:
            schema = dict(schemas[0])
        elif all(set(schema) == {"type"} and isinstance(schema["type"], str) for schema in schemas):
            schema = {"type": sorted(schema["type"] for schema in schemas)}
        else:
            schema = {"anyOf": schemas}
        return {**schema, "nullable": True} if type(None) in arguments else schema
    if origin is list and arguments:
        return {"type": "array", "items": type_schema(arguments[0])}
    if origin is dict and arguments:
        return {"type": "object", "additionalProperties": type_schema(arguments[1])}
    if origin in (list, dict, tuple):
        return {"type": _JSON_TYPES[origin]}
    if hint is typing.Any:
        return {}
    raise ValueError(f"the type {hint!r} has no JSON schema here; give the tool as a dict")


def _read_docstring(tool):
    """Return ``(summary, {parameter: description}, description of the result)`` of a Google-style docstring."""
    text = inspect.getdoc(tool)
    if not text:
        raise ValueError(f"tool {tool.__name__} has no docstring, which tells the model what it does")
    parts = re.split(r"^(Args|Returns|Raises|Examples?):\s*$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    described = {}
    entry = re.compile(r"^\s+(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
    name = None
    for line in sections.get("Args", "").splitlines():
        match = entry.match(line)
        if match:
            name = match.group(1)
            described[name] = match.group(2).strip()
        elif name and line.strip():
            described[name] = f"{described[name]} {line.strip()}".strip()
    returned = " ".join(sections.get("Returns", "").split())
    return parts[0].strip(), described, re.sub(r"^[\w\[\], .|]+:\s+", "", returned)
