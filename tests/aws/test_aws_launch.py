"""The launcher against a local AWS over HTTP, as far as that goes, and against botocore's Stubber where it does not.

moto's CloudFormation knows neither secrets nor Cloud Map nor egress rules, and of a bucket hardly more than the name.
Environments and training nodes are therefore started on exports that the test makes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import datetime
from pathlib import Path

import boto3
import calls as calls_module
import launch
import pytest
from botocore.stub import Stubber

from sdar_verl.skills import open_store
from sdar_verl.skills.aws import Address
from sdar_verl.skills.dynamodb import SkillTable

AWS = Path(launch.__file__).parent
WAIT = {"Delay": 1, "MaxAttempts": 5}
BUCKET = "sdar-123456789012-us-east-1"


def run(*words: str) -> int:
    return launch.main(["--region", "us-east-1", *words], WAIT)


@pytest.fixture
def exports(cloud):
    """What the store and the network export."""
    ec2 = cloud("ec2")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=network, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"]
        for n, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=network)["GroupId"]
    cloud("s3").create_bucket(Bucket=BUCKET)
    values = {
        "bucket": BUCKET,
        "skill-table": "sdar-skills",
        "env-token": "arn:aws:secretsmanager:us-east-1:123456789012:secret:token",
        "trainer-logs": "/sdar/trainer",
        "environment-logs": "/sdar/environments",
        "subnets": ",".join(s["SubnetId"] for s in subnets),
        "trainer-group": group,
        "environment-group": group,
        "cluster": "sdar",
        "names": "ns-1",
    }
    outputs = {f"O{n}": {"Value": v, "Export": {"Name": f"sdar-{k}"}} for n, (k, v) in enumerate(values.items())}
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}
    cloud("cloudformation").create_stack(StackName="exports", TemplateBody=json.dumps(template))
    return values


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A committed project of two files as what is released."""
    root = tmp_path / "project"
    for name, text in {
        "recipes/alfworld/p5.sh": "exit 0\n",
        "scripts/aws/node/start.sh": "echo started in the release\n",
    }.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", "-C", root, *words], check=True)
    monkeypatch.setattr(launch, "ROOT", root)
    return root


# --- the store --------------------------------------------------------------------------------------------------------


def test_the_store_holds_what_the_project_writes(cloud, moto_url, capsys):
    assert run("store", "--email", "someone@example.org") == 0
    assert f"sdar-store: Bucket = {BUCKET}" in capsys.readouterr().out
    table = Address("sdar-skills", "alfworld", region="us-east-1", endpoint=moto_url)
    shipped = open_store("alfworld_tiny")
    assert not SkillTable(table).create(), "the table is there already"
    assert SkillTable(table).push(shipped.all()).number == 1
    assert open_store(str(table)).content_hash == shipped.content_hash
    assert {g["logGroupName"]: g["retentionInDays"] for g in cloud("logs").describe_log_groups()["logGroups"]} == {
        "/sdar/trainer": 30,
        "/sdar/environments": 30,
    }
    assert len(cloud("ecr").describe_repositories()["repositories"]) == 3


def test_the_network_has_two_zones_and_one_way_out(cloud):
    assert run("network", "--zones", "us-east-1a", "us-east-1c") == 0
    ec2 = cloud("ec2")
    (network,) = ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.20.0.0/16"]}])["Vpcs"]
    here = [{"Name": "vpc-id", "Values": [network["VpcId"]]}]
    zones = {s["CidrBlock"]: s["AvailabilityZone"] for s in ec2.describe_subnets(Filters=here)["Subnets"]}
    assert zones == {"10.20.0.0/24": "us-east-1a", "10.20.16.0/20": "us-east-1a", "10.20.32.0/20": "us-east-1c"}
    assert len(ec2.describe_nat_gateways()["NatGateways"]) == 1
    endpoints = ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]
    assert {e["ServiceName"].rpartition(".")[2] for e in endpoints} == {"s3", "dynamodb"}


# --- what runs on it --------------------------------------------------------------------------------------------------


def test_environments_are_one_stack_each(exports, cloud, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(launch.aws, "deploy", lambda calls, stack, template, parameters, tags: made.append(parameters))
    assert (
        run("environments", "search_qa", "--tag", "v1", "--count", "2", "--set", 'retriever={"engine": "bm25s"}') == 0
    )
    assert [p["Name"] for p in made] == ["search-qa-1", "search-qa-2"]
    (arguments,) = {p["Arguments"] for p in made}
    assert arguments.startswith("--set|data_root=/data|--step-timeout|180|--set|retriever=")
    assert arguments.endswith('|--set|retriever={"engine": "bm25s"}'), "the last one wins"
    assert run("environments", "alfworld", "--tag", "v1", "--set", "a=b|c") == 1
    assert "no value with a |" in capsys.readouterr().err


@pytest.fixture
def without_image_lookup(tmp_path, monkeypatch):
    """moto looks the parameter's default up even where another is given, and has none of AWS's public ones."""
    copy = tmp_path / "templates"
    shutil.copytree(AWS, copy)
    trainer = copy / "trainer.yaml"
    trainer.write_text(trainer.read_text().replace("AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", "String"))
    monkeypatch.setattr(calls_module, "HERE", copy)


FAKE_AWS = f"""#!{sys.executable}
import boto3, pathlib, sys
if sys.argv[1:3] == ["autoscaling", "set-desired-capacity"]:
    given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
    group, size = given["--auto-scaling-group-name"], int(given["--desired-capacity"])
    client = boto3.client("autoscaling", region_name=given["--region"])
    client.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=size)
    sys.exit()
assert sys.argv[1:3] == ["s3", "cp"], sys.argv
if (fails := pathlib.Path(__file__).with_name("fails")).exists():
    fails.unlink()
    sys.exit("no credentials yet")
source, target = sys.argv[-2:]
bucket, _, key = source.removeprefix("s3://").partition("/")
boto3.client("s3", region_name="us-east-1").download_file(bucket, key, target)
"""


@pytest.fixture
def trained(exports, cloud, project, without_image_lookup, tmp_path, moto_url):
    image = "ami-03cf127a"
    words = ["--run", "one", "--recipe", "recipes/alfworld/p5.sh", "--instance", "p5.48xlarge", "--image", image]
    assert run("train", *words, "--environments", "2", "x=${a.b}", "note='two words'") == 0
    (template,) = cloud("ec2").describe_launch_templates()["LaunchTemplates"]
    versions = cloud("ec2").describe_launch_template_versions(
        LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"]
    )
    data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]

    def boot():
        """Its user data as a process, with folders of the test and an `aws` that asks the local AWS."""
        script = base64.b64decode(data["UserData"]).decode()
        script = script.replace("/etc/sdar", str(tmp_path / "etc")).replace("/opt/sdar", str(tmp_path / "opt"))
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "aws").write_text(FAKE_AWS)
        (tmp_path / "bin" / "sleep").write_text("#!/bin/sh\n")
        for name in ("aws", "sleep"):
            (tmp_path / "bin" / name).chmod(0o755)
        variables = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, timeout=60)

    return data, boot


def test_a_run_is_a_group_of_one_that_asks_for_spot(trained, cloud):
    data, _ = trained
    (group,) = cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 1, 1)
    assert set(group["AvailabilityZones"]) == {"us-east-1a", "us-east-1b"}
    assert data["InstanceMarketOptions"]["MarketType"] == "spot" and data["InstanceType"] == "p5.48xlarge"
    assert run("stop", "one") == 0
    (group,) = cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 0


def test_a_run_that_is_there_is_replaced_only_when_told(trained, cloud, capsys):
    """An update of its stack would say that all is well, and leave the node as it is."""
    words = ["train", "--run", "one", "--recipe", "recipes/alfworld/p5.sh", "--instance", "p5.48xlarge"]
    words += ["--image", "ami-03cf127a"]

    def group():
        return cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]

    (before,) = group()["Instances"]
    assert run(*words, "x=2") == 1
    said = capsys.readouterr().err
    assert "launch start one" in said and "--replace" in said and group()["Instances"] == [before]
    assert run(*words, "--replace", "x=2") == 0
    assert "launch status" in capsys.readouterr().out
    (after,) = group()["Instances"]
    assert group()["DesiredCapacity"] == 1 and after["InstanceId"] != before["InstanceId"]


def test_the_node_runs_the_release_and_no_other(trained, cloud, tmp_path, project):
    _, boot = trained
    (project / "scripts/aws/node/start.sh").write_text("changed after the launch\n")
    done = boot()
    assert done.returncode == 0, done.stderr
    assert "started in the release" in done.stdout
    assert json.loads((tmp_path / "etc" / "overrides.json").read_text()) == ["x=${a.b}", "note='two words'"]
    endpoints = json.loads((tmp_path / "etc" / "endpoints.json").read_text())
    assert endpoints == [f"ws://alfworld-{n}.sdar.internal:8400" for n in (1, 2)]
    told = dict(line.split("=", 1) for line in (tmp_path / "etc" / "node.env").read_text().splitlines())
    assert told["SDAR_BUCKET"] == BUCKET and told["SDAR_GROUP"] == "sdar-one" and told["SDAR_RUN"] == "one"
    programs = "".join(path.read_text() for path in (AWS / "node").iterdir() if path.is_file())
    used = set(re.findall(r"SDAR_(?!SCRATCH)[A-Z_]+", programs))
    assert {name for name in told if name.startswith("SDAR_")} == used, "what is told is used"
    # the command line reads the first, boto3 the second
    assert told["SDAR_HANG_HOURS"] == "8" and int(told["AWS_METADATA_SERVICE_NUM_ATTEMPTS"]) > 1
    assert told["AWS_REGION"] == told["AWS_DEFAULT_REGION"] == "us-east-1"

    # A release that was changed in the bucket is not run, and the node does not stay for it.
    (group,) = cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 1
    shutil.rmtree(tmp_path / "opt")
    (item,) = cloud("s3").list_objects_v2(Bucket=BUCKET, Prefix="releases/")["Contents"]
    cloud("s3").put_object(Bucket=BUCKET, Key=item["Key"], Body=b"something else")
    done = boot()
    assert done.returncode != 0 and "FAILED" in done.stdout and not list((tmp_path / "opt").iterdir())
    (group,) = cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 0


def test_a_release_that_cannot_be_fetched_for_a_moment_is_asked_for_again(trained, cloud, tmp_path):
    _, boot = trained
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fails").touch()
    done = boot()
    assert done.returncode == 0 and "no credentials yet" in done.stderr and "started in the release" in done.stdout
    (group,) = cloud("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 1


def test_a_release_is_the_committed_state_and_the_same_each_time(project):
    one, commit = launch.release()
    assert launch.release() == (one, commit) and len(commit) == 40
    names = tarfile.open(fileobj=io.BytesIO(one)).getnames()
    assert "scripts/aws/node/start.sh" in names
    (project / "new").touch()
    with pytest.raises(launch.LaunchError, match="commit first.*\n.*new"):
        launch.release()


def test_everything_but_the_store_is_taken_down_in_order(exports, cloud, capsys):
    simple = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    names = ["sdar-store", "sdar-network", "sdar-env-a-1", "sdar-run-one", "other-run-one"]
    for name in names:
        tag = [{"Key": "project", "Value": name.partition("-")[0]}]
        cloud("cloudformation").create_stack(StackName=name, TemplateBody=simple, Tags=tag)
    assert run("status") == 0 and "sdar-run-one: CREATE_COMPLETE" in capsys.readouterr().out
    assert run("down") == 0
    deleted = re.findall(r'delete_stack {"StackName": "(.+)"}', capsys.readouterr().out)
    assert deleted == ["sdar-run-one", "sdar-env-a-1", "sdar-network"]
    left = {s["StackName"] for s in cloud("cloudformation").describe_stacks()["Stacks"]}
    assert left == {"exports", "sdar-store", "other-run-one"}


# --- dry runs ---------------------------------------------------------------------------------------------------------


COMMANDS = {
    "store": ["store", "--email", "a@example.org"],
    "network": ["network", "--zones", "us-east-1a", "us-east-1b"],
    "environments": ["environments", "alfworld", "--tag", "v1", "--count", "2"],
    "image": ["image", "alfworld", "--data", ".", "--tag", "v1"],
    "stop": ["stop", "one"],
    "down": ["down"],
    "status": ["status"],
    "train": ["train", "--run", "one", "--recipe", "recipes/alfworld/p5.sh", "--instance", "p5.48xlarge"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_makes_no_call(name, monkeypatch, project, capsys):
    """Neither boto3's clients nor other programs are to be had in it."""
    monkeypatch.setattr(calls_module.Calls, "client", lambda *_: pytest.fail("a client was made"))
    monkeypatch.setattr(calls_module.subprocess, "run", _only_git(subprocess.run))
    assert run("--dry-run", *COMMANDS[name]) == 0
    said = capsys.readouterr().out
    assert said.startswith("aws: ")
    wanted = {
        "store": ["create_stack", "<scripts/aws/store.yaml, "],
        "environments": ["sdar-env-alfworld-1", "sdar-env-alfworld-2"],
        "image": ["run: docker build", "run: docker push ACCOUNT.dkr.ecr.us-east-1.amazonaws.com/sdar-env-alfworld:v1"],
        "stop": ['"DesiredCapacity": 0'],
        "down": ["sdar-network"],
        "train": ["s3 put_object", '"ParameterKey": "ReleaseSha256"', "stack_create_complete"],
    }
    assert all(text in said for text in wanted.get(name, []))


def _only_git(run_):
    def checked(command, *args, **more):
        assert command[0] == "git", command
        return run_(command, *args, **more)

    return checked


def test_real_calls_are_those_that_the_dry_run_printed(cloud, capsys):
    def made() -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("aws: ")]

    words = ["store", "--email", "a@example.org"]
    run("--dry-run", *words)
    printed = made()
    run(*words)
    assert made()[: len(printed)] == printed


# --- what AWS may say -------------------------------------------------------------------------------------------------


def test_a_run_that_gets_no_node_says_why(monkeypatch, capsys):
    """Its stack stands all the same: what AWS refuses is told in the group's activities alone."""
    client = boto3.client("autoscaling", "us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    monkeypatch.setattr(calls_module.Calls, "client", lambda self, service: client)
    monkeypatch.setattr(launch.aws, "stacks_of", lambda calls, project: ["sdar-run-one", "sdar-store"])
    monkeypatch.setattr(launch.aws, "find_stack", lambda calls, name: {"StackStatus": "CREATE_COMPLETE"})
    group = {"AutoScalingGroupName": "sdar-one", "MinSize": 0, "MaxSize": 1, "DesiredCapacity": 1, "Instances": []}
    group |= {"DefaultCooldown": 300, "AvailabilityZones": ["a"], "HealthCheckType": "EC2"}
    group["CreatedTime"] = "2026-01-01T00:00:00Z"

    def activity(minute, status, message):
        told = {"ActivityId": str(minute), "AutoScalingGroupName": "sdar-one", "Cause": "x", "StatusMessage": message}
        return told | {"StartTime": datetime(2026, 1, 1, 0, minute), "StatusCode": status}

    activities = [
        activity(9, "Failed", "You have requested more vCPU capacity than your current vCPU limit of 0"),
        activity(7, "Failed", "We currently do not have sufficient p5.48xlarge capacity"),
        activity(5, "Successful", "gone"),
        activity(3, "Failed", "long ago"),
    ]
    with Stubber(client) as stub:
        stub.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [group]})
        stub.add_response("describe_scaling_activities", {"Activities": activities})
        assert run("status") == 0
    said = capsys.readouterr().out
    assert "nodes wanted: 1, there: none" in said and "00:09 You have requested more vCPU" in said
    assert "sufficient p5.48xlarge capacity" in said and "long ago" not in said


@pytest.fixture
def stubbed(monkeypatch):
    """A CloudFormation client that answers what the test gave it."""
    client = boto3.client("cloudformation", "us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    monkeypatch.setattr(calls_module.Calls, "client", lambda self, service: client)
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def stack(status: str) -> dict:
    return {"Stacks": [{"StackName": "sdar-network", "StackStatus": status, "CreationTime": "2026-01-01T00:00:00Z"}]}


NETWORK = ["network", "--zones", "us-east-1a", "us-east-1b"]


def test_nothing_to_update_is_no_failure(stubbed, capsys):
    stubbed.add_response("describe_stacks", stack("CREATE_COMPLETE"), {"StackName": "sdar-network"})
    stubbed.add_client_error("update_stack", "ValidationError", "No updates are to be performed.")
    assert run(*NETWORK) == 0 and "nothing has changed" in capsys.readouterr().out


def test_a_stack_that_never_stood_must_be_deleted_first(stubbed, capsys):
    stubbed.add_response("describe_stacks", stack("ROLLBACK_COMPLETE"))
    assert run(*NETWORK) == 1 and "delete it and try again" in capsys.readouterr().err


def test_a_refusal_is_told(stubbed, capsys):
    stubbed.add_client_error("describe_stacks", "AccessDenied", "not you")
    assert run(*NETWORK) == 1 and "not you" in capsys.readouterr().err


def test_a_failed_stack_names_the_resources_that_failed(stubbed, capsys):
    stubbed.add_client_error("describe_stacks", "ValidationError", "Stack with id sdar-network does not exist")
    stubbed.add_response("create_stack", {"StackId": "1"})
    stubbed.add_response("describe_stacks", stack("ROLLBACK_COMPLETE"))
    event = {"StackId": "1", "EventId": "1", "StackName": "sdar-network", "Timestamp": "2026-01-01T00:00:00Z"}
    failed = {
        "LogicalResourceId": "Nat",
        "ResourceStatus": "CREATE_FAILED",
        "ResourceStatusReason": "too many addresses",
    }
    fine = {"LogicalResourceId": "Network", "ResourceStatus": "CREATE_COMPLETE"}
    stubbed.add_response("describe_stack_events", {"StackEvents": [{**event, **failed}, {**event, **fine}]})
    assert run(*NETWORK) == 1
    said = capsys.readouterr().err
    assert "Nat: too many addresses" in said and "Network:" not in said


def test_missing_credentials_say_what_to_do(monkeypatch, capsys):
    given = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    for name in (*given, *(name for name in os.environ if name.startswith("AWS_CONTAINER_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    assert run(*NETWORK) == 1 and "log in" in capsys.readouterr().err


def test_an_archive_of_data_is_uploaded(exports, cloud, tmp_path, capsys):
    archive = tmp_path / "games.tar.gz"
    archive.write_bytes(b"x" * 1000)
    assert run("data", str(archive)) == 0 and "--data-key data/games.tar.gz" in capsys.readouterr().out
    body = cloud("s3").get_object(Bucket=BUCKET, Key="data/games.tar.gz")["Body"].read()
    assert hashlib.sha256(body).digest() == hashlib.sha256(archive.read_bytes()).digest()
    assert run("data", str(tmp_path / "none.tar")) == 1 and run("data", str(tmp_path)) == 1


def test_data_without_the_store_says_why(cloud, tmp_path, capsys):
    archive = tmp_path / "games.tar"
    archive.write_bytes(b"x")
    assert run("data", str(archive)) == 1 and "NoSuchBucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override", ["++api_key=abc", "env.service.token='abc'", "x=hf_" + 20 * "a", "u=https://a:b@c"]
)
def test_a_secret_among_the_overrides_is_refused(override, project, capsys):
    assert run("--dry-run", *COMMANDS["train"], override) == 1
    said = capsys.readouterr()
    assert override.partition("=")[0].lstrip("+") in said.err and "environment variable" in said.err
    assert override.partition("=")[2] not in said.out + said.err


def test_a_reservation_is_none_for_spot(project, capsys):
    assert run("--dry-run", *COMMANDS["train"], "--reservation", "cr-1") == 1
    assert "on-demand or capacity-block" in capsys.readouterr().err
    assert run("--dry-run", *COMMANDS["train"], "--reservation", "cr-1", "--market", "on-demand") == 0


def test_settings_that_only_sound_like_secrets_are_none(project):
    words = ["env.service.token_file=/run/token", "data.tokenizer_path=x", "a.max_token_len=4", "~a.api_key", "b=[1,2]"]
    assert run("--dry-run", *COMMANDS["train"], *words) == 0
