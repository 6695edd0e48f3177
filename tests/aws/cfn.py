"""Reads CloudFormation templates, and works out the few functions that conditions are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

AWS = Path(__file__).parents[2] / "scripts" / "aws"
TEMPLATES = sorted(AWS.glob("*.yaml"))
TEMPLATES = [path for path in TEMPLATES if "AWSTemplateFormatVersion" in path.read_text()]


class _Loader(yaml.SafeLoader):
    pass


def _function(loader: yaml.Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


def read(name: str) -> dict[str, Any]:
    return yaml.load((AWS / name).read_text(), _Loader)


def walk(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping within `value`."""
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


GONE = object()


class Solved:
    """A template under given parameters; what only AWS knows stays as it is."""

    def __init__(self, template: Mapping[str, Any], **parameters: str) -> None:
        self._template = template
        self._values = {k: v["Default"] for k, v in template["Parameters"].items() if "Default" in v} | parameters

    def solve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [solved for item in value if (solved := self.solve(item)) is not GONE]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name == "Ref" and inner == "AWS::NoValue":
                return GONE
            if name == "Ref":
                return self._values.get(inner, value)
            if name == "Condition" and isinstance(inner, str):
                return self.solve(self._template["Conditions"][inner])
            if name == "Fn::Equals":
                one, other = map(self.solve, inner)
                return one == other
            if name == "Fn::Not":
                return not self.solve(inner[0])
            if name == "Fn::And":
                return all(map(self.solve, inner))
            if name == "Fn::If":
                return self.solve(inner[1] if self.solve({"Condition": inner[0]}) else inner[2])
            if name == "Fn::FindInMap":
                top, *keys = inner
                found = self._template["Mappings"][top]
                for key in map(self.solve, keys):
                    found = found[key]
                return found
            if name == "Fn::Join":
                glue, parts = inner[0], self.solve(inner[1])
                return glue.join(map(str, parts))
            if name == "Fn::Split":
                return self.solve(inner[1]).split(inner[0])
        solved = {key: self.solve(item) for key, item in value.items()}
        return {key: item for key, item in solved.items() if item is not GONE}
