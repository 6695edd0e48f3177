"""AWS calls that are made, or only printed; and CloudFormation stacks out of them."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MAX_TEMPLATE = 51_200  # bytes of a template that a call can carry
WAIT = {"Delay": 15, "MaxAttempts": 160}  # 40 minutes
_HELD = ("CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED")
_DEAD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS")  # of a stack that never came to be


class LaunchError(Exception):
    """Something cannot be launched; the message says what to do."""


class Calls:
    """Makes calls with boto3, or prints what it would call.

    Args:
        region: where.
        dry_run: print each call and make none; needs neither credentials nor boto3.
        wait: how boto3's waiters wait.
    """

    def __init__(self, region: str, dry_run: bool, wait: Mapping[str, int] | None = None) -> None:
        self.region, self.dry_run, self._wait = region, dry_run, dict(wait or WAIT)
        self._clients: dict[str, Any] = {}

    def call(self, service: str, operation: str, hidden: Mapping[str, str] | None = None, **parameters: Any) -> Any:
        """The answer; an empty one in a dry run.

        Args:
            hidden: what is printed instead of long or binary parameters.

        Raises:
            LaunchError: AWS refuses, or cannot be reached.
        """
        shown = {**parameters, **(hidden or {})}
        print(f"aws: {service} {operation} {json.dumps(shown, default=str)}", flush=True)
        return {} if self.dry_run else self._answer(getattr(self.client(service), operation), **parameters)

    def wait(self, service: str, waiter: str, **parameters: Any) -> None:
        """Until `waiter` is content; raises `LaunchError` when it will not be."""
        print(f"aws: {service} wait {waiter} {json.dumps(parameters)}", flush=True)
        if not self.dry_run:
            self._answer(self.client(service).get_waiter(waiter).wait, WaiterConfig=self._wait, **parameters)

    def until(
        self, service: str, operation: str, done: Callable[[Any], bool], otherwise: str, **parameters: Any
    ) -> None:
        """Ask again and again until `done` is content with the answer; raises `LaunchError` with `otherwise`."""
        print(f"aws: {service} {operation} {json.dumps(parameters)}, again and again", flush=True)
        if self.dry_run:
            return
        for _ in range(self._wait["MaxAttempts"]):
            if done(self._answer(getattr(self.client(service), operation), **parameters)):
                return
            time.sleep(self._wait["Delay"])
        raise LaunchError(otherwise)

    def local(self, command: Sequence[str], stdin: str | None = None) -> None:
        """A command on this machine; its input is never printed."""
        print(f"run: {shlex.join(command)}", flush=True)
        if self.dry_run:
            return
        try:
            subprocess.run(command, input=stdin, text=True, check=True)
        except FileNotFoundError as error:
            raise LaunchError(f"{command[0]} is not installed") from error
        except subprocess.CalledProcessError as error:
            raise LaunchError(f"{command[0]} ended with status {error.returncode}") from error

    def client(self, service: str) -> Any:
        if service not in self._clients:
            try:
                import boto3.session
            except ImportError as error:
                raise LaunchError("boto3 is missing: pip install boto3, or pip install '.[aws]'") from error
            self._clients[service] = boto3.session.Session(region_name=self.region).client(service)
        return self._clients[service]

    def _answer(self, function: Any, **parameters: Any) -> Any:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return function(**parameters)
        except NoCredentialsError as error:
            raise LaunchError("no AWS credentials: log in (aws sso login), or set AWS_PROFILE") from error
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise LaunchError(str(error)) from error


def deploy(calls: Calls, stack: str, template: str, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Create the stack, or update it if it is there, and wait until it stands.

    Args:
        template: a file beside this one.

    Raises:
        LaunchError: it does not come to stand; the message names the resources that failed, with AWS's reasons.
    """
    body = (HERE / template).read_text(encoding="utf-8")
    if len(body.encode()) > MAX_TEMPLATE:
        raise LaunchError(f"{template} is longer than {MAX_TEMPLATE:,} bytes")
    request = {
        "StackName": stack,
        "TemplateBody": body,
        "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": [{"Key": k, "Value": v} for k, v in tags.items()],
    }
    digest = hashlib.sha256(body.encode()).hexdigest()[:12]
    hidden = {"TemplateBody": f"<scripts/aws/{template}, {len(body.encode()):,} bytes, sha256 {digest}...>"}
    state = find_stack(calls, stack)
    if calls.dry_run:
        print(f"     (if {stack} is there, update_stack with the same parameters and wait stack_update_complete:)")
    if state is None:
        calls.call("cloudformation", "create_stack", hidden, **request, OnFailure="ROLLBACK")
        kind = "create"
    elif state["StackStatus"] in _DEAD:
        raise LaunchError(f"stack {stack} never came to stand ({state['StackStatus']}); delete it and try again")
    else:
        try:
            calls.call("cloudformation", "update_stack", hidden, **request)
        except LaunchError as error:
            if "No updates are to be performed" in str(error):
                print(f"{stack}: nothing has changed")
                return
            raise
        kind = "update"
    try:
        calls.wait("cloudformation", f"stack_{kind}_complete", StackName=stack)
    except LaunchError as error:
        raise LaunchError(f"stack {stack}: {error}{_reasons(calls, stack)}") from error
    if not calls.dry_run:
        for output in (find_stack(calls, stack) or {}).get("Outputs", []):
            print(f"{stack}: {output['OutputKey']} = {output['OutputValue']}")


def delete(calls: Calls, stack: str) -> None:
    """Delete a stack and wait until it is gone; nothing if there is none."""
    calls.call("cloudformation", "delete_stack", StackName=stack)
    try:
        calls.wait("cloudformation", "stack_delete_complete", StackName=stack)
    except LaunchError as error:
        raise LaunchError(f"stack {stack}: {error}{_reasons(calls, stack)}") from error


def find_stack(calls: Calls, stack: str) -> dict[str, Any] | None:
    """The stack as AWS describes it; None if there is none."""
    try:
        found = calls.call("cloudformation", "describe_stacks", StackName=stack)
    except LaunchError as error:
        if "does not exist" in str(error):
            return None
        raise
    return found["Stacks"][0] if found else None


def stands(calls: Calls, stack: str) -> bool:
    """Whether it is there and came to stand once."""
    state = find_stack(calls, stack)
    return state is not None and state["StackStatus"] not in _DEAD


def stacks_of(calls: Calls, project: str) -> list[str]:
    """Names of all stacks with the tag ``project``, in no particular order."""
    print(f"aws: cloudformation describe_stacks (all pages), those with the tag project={project}", flush=True)
    if calls.dry_run:
        return []
    pages = calls.client("cloudformation").get_paginator("describe_stacks").paginate()
    found = calls._answer(lambda: [stack for page in pages for stack in page["Stacks"]])
    return [s["StackName"] for s in found if {"Key": "project", "Value": project} in s.get("Tags", [])]


def _reasons(calls: Calls, stack: str) -> str:
    events = calls.call("cloudformation", "describe_stack_events", StackName=stack).get("StackEvents", [])
    failed = [event for event in events if event["ResourceStatus"] in _HELD]
    lines = [f"  {e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in reversed(failed)]
    return "\n" + "\n".join(lines) if lines else ""
