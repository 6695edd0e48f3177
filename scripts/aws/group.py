"""The Auto Scaling group of a run: its size, and why it has no node."""

from __future__ import annotations

from itertools import takewhile

from calls import Calls

SHOWN = 3  # of the newest attempts


def resize(calls: Calls, group: str, size: int) -> None:
    calls.call("autoscaling", "set_desired_capacity", AutoScalingGroupName=group, DesiredCapacity=size)


def empty(calls: Calls, group: str) -> None:
    """End the node and wait until it is gone: it saves first, and the next one must not begin before that."""
    resize(calls, group, 0)
    calls.until(
        "autoscaling",
        "describe_auto_scaling_groups",
        lambda answer: not answer["AutoScalingGroups"][0]["Instances"],
        f"{group} still has a node; look at `launch status`, and try again",
        AutoScalingGroupNames=[group],
    )


def describe(calls: Calls, group: str) -> list[str]:
    """Lines about its nodes, and about what AWS could not start since it last could; none if there is no such group."""
    found = calls.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[group])
    if not found.get("AutoScalingGroups"):
        return []
    wanted, nodes = found["AutoScalingGroups"][0]["DesiredCapacity"], found["AutoScalingGroups"][0]["Instances"]
    states = ", ".join(f"{node['InstanceId']} {node['LifecycleState']}" for node in nodes) or "none"
    lines = [f"nodes wanted: {wanted}, there: {states}"]
    answer = calls.call("autoscaling", "describe_scaling_activities", AutoScalingGroupName=group, MaxRecords=20)
    newest = takewhile(lambda activity: activity["StatusCode"] != "Successful", answer["Activities"])
    failed = [activity for activity in newest if activity["StatusCode"] in ("Failed", "Cancelled")]
    for activity in failed[:SHOWN]:
        lines.append(f"{activity['StartTime']:%Y-%m-%d %H:%M} {activity.get('StatusMessage', activity['StatusCode'])}")
    return lines
