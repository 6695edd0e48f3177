"""The templates as AWS will read them: linted, consistent with one another and with the code, and closed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from calls import MAX_TEMPLATE
from cfn import AWS, TEMPLATES, Solved, read, walk
from launch import ARGUMENTS, EXTRAS
from sdar_envs import registry
from sdar_envs.service.cli import _parser, read_config

from sdar_verl.plan.catalogue import load_catalogue
from sdar_verl.plan.cost import REPLACED_DAYS

LINTER = Path(sys.executable).with_name("cfn-lint")
NAMES = [path.name for path in TEMPLATES]
TRAINER = read("trainer.yaml")
# What AWS lets nobody restrict to a resource.
WITHOUT_RESOURCE = {
    "ecr:GetAuthorizationToken",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}


def resources(name: str, kind: str) -> dict[str, dict]:
    return {k: r["Properties"] for k, r in read(name)["Resources"].items() if r["Type"] == kind}


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def test_all_templates_are_there():
    assert NAMES == ["environment.yaml", "network.yaml", "store.yaml", "trainer.yaml"]


def test_the_templates_are_lint_clean():
    done = subprocess.run(
        [LINTER, "--regions", "us-east-1", "us-west-2", "--", *TEMPLATES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_sees_mistakes(tmp_path):
    """The test above would show a mistake: one is made."""
    broken = tmp_path / "broken.yaml"
    broken.write_text((AWS / "store.yaml").read_text().replace("KeyType: HASH", "KeyType: HASHED"))
    done = subprocess.run([LINTER, broken], capture_output=True, text=True)
    assert done.returncode != 0 and "HASHED" in done.stdout


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_a_call_can_carry_it_and_cloudformation_can_read_it(path):
    assert len(path.read_bytes()) <= MAX_TEMPLATE
    tokens = list(yaml.scan(path.read_text()))
    assert not [t for t in tokens if isinstance(t, yaml.AliasToken | yaml.AnchorToken)], (
        "CloudFormation takes no aliases"
    )


def test_what_is_imported_is_exported():
    exported = {
        output["Export"]["Name"]["Fn::Sub"]
        for name in ("store.yaml", "network.yaml")
        for output in read(name)["Outputs"].values()
    }
    imported = {
        (found if isinstance(found, str) else found["Fn::Sub"])
        for name in ("environment.yaml", "trainer.yaml")
        for part in walk(read(name))
        if (found := part.get("Fn::ImportValue"))
    }
    assert imported == exported


# --- rights -----------------------------------------------------------------------------------------------------------


def statements():
    for name in NAMES:
        for key, role in resources(name, "AWS::IAM::Role").items():
            assert "ManagedPolicyArns" not in role, "AWS's own policies take in far more than is needed"
            for policy in role["Policies"]:
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield f"{name}:{key}", statement["Fn::If"][1] if "Fn::If" in statement else statement


def test_rights_name_their_actions_and_resources():
    seen = set()
    for where, statement in statements():
        actions = as_list(statement["Action"])
        seen.update(actions)
        assert statement["Effect"] == "Allow" and "NotAction" not in statement and "NotResource" not in statement
        assert not [a for a in actions if "*" in a], where
        for resource in as_list(statement["Resource"]):
            if resource == "*":
                assert set(actions) <= WITHOUT_RESOURCE, where
            elif "Fn::Sub" in resource:
                text = resource["Fn::Sub"] if isinstance(resource["Fn::Sub"], str) else resource["Fn::Sub"][0]
                arn = text.split(":", 5)
                assert arn[0] == "arn" and len(arn) == 6 and arn[5] not in ("*", ""), where
                assert "*" not in ":".join(arn[:5]), where
    assert WITHOUT_RESOURCE < seen


def test_a_node_writes_only_under_its_own_run():
    writes = [s for where, s in statements() if where == "trainer.yaml:Role" and "s3:PutObject" in as_list(s["Action"])]
    assert [s["Resource"]["Fn::Sub"][0] for s in writes] == ["arn:${AWS::Partition}:s3:::${Bucket}/runs/${Run}/*"]


def test_the_environment_itself_may_do_nothing_in_aws():
    (task,) = resources("environment.yaml", "AWS::ECS::TaskDefinition").values()
    assert "TaskRoleArn" not in task


# --- closed to the outside --------------------------------------------------------------------------------------------


def test_nothing_can_be_reached_from_outside():
    for name in NAMES:
        template = read(name)
        for part in walk(template):
            assert part.get("MapPublicIpOnLaunch", False) is False
            assert part.get("AssignPublicIp", "DISABLED") == "DISABLED"
            assert "AssociatePublicIpAddress" not in part and "KeyName" not in part
            for rule in part.get("SecurityGroupIngress", []):
                assert "CidrIp" not in rule and "CidrIpv6" not in rule
        for rule in resources(name, "AWS::EC2::SecurityGroupIngress").values():
            assert "SourceSecurityGroupId" in rule and "CidrIp" not in rule
    out = [r for p in walk(read("network.yaml")) for r in p.get("SecurityGroupEgress", [])]
    assert {(r["CidrIp"], r["FromPort"], r["ToPort"]) for r in out} == {("0.0.0.0/0", 443, 443)}


def test_the_bucket_is_closed_encrypted_and_does_not_grow_for_ever():
    (bucket,) = resources("store.yaml", "AWS::S3::Bucket").values()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"} and "BucketEncryption" in bucket
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}
    assert "AbortIncompleteMultipartUpload" in rules["unfinished-uploads"]
    assert "NoncurrentVersionExpiration" in rules["old-versions"]
    replaced = rules["replaced-checkpoints"]
    assert replaced["Prefix"] == "runs/" and replaced["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert 1 <= REPLACED_DAYS <= 2, "what the planner counts"
    (policy,) = resources("store.yaml", "AWS::S3::BucketPolicy").values()
    (only_tls,) = policy["PolicyDocument"]["Statement"]
    assert only_tls["Effect"] == "Deny" and only_tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_data_outlives_the_stack_and_logs_do_not_outlive_their_days():
    for name, resource in read("store.yaml")["Resources"].items():
        if resource["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table"):
            assert resource["DeletionPolicy"] == "Retain", name
        if resource["Type"] == "AWS::Logs::LogGroup":
            assert resource["Properties"]["RetentionInDays"] == {"Ref": "LogDays"}


# --- the environments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment, settings",
    [
        ("alfworld", {}),
        ("webshop", {"reward": "score"}),
        ("search_qa", {"retriever": {"engine": "bm25s", "index": "/data/index"}}),
    ],
)
def test_the_service_is_called_as_it_is(environment, settings):
    (task,) = resources("environment.yaml", "AWS::ECS::TaskDefinition").values()
    own = [word for k, v in settings.items() for word in ("--set", f"{k}={json.dumps(v)}")]
    arguments = "|".join(["--set", "data_root=/data", *ARGUMENTS[environment], *own])
    solved = Solved(read("environment.yaml"), Name="a-1", ImageTag="1", Environment=environment, Arguments=arguments)
    (container,) = solved.solve(task)["ContainerDefinitions"]
    args = _parser().parse_args(["serve", *container["Command"]])
    assert args.env == environment and args.host == "0.0.0.0"
    chosen = registry.get(environment).settings(read_config(args.config, args.set))
    assert chosen["data_root"] == "/data" and {k: chosen[k] for k in settings} == settings
    assert args.drain_timeout + 5 < container["StopTimeout"] <= 120, "Fargate Spot gives two minutes"
    (port,) = container["PortMappings"]
    assert port["ContainerPort"] == args.port
    assert {s["Name"] for s in container["Secrets"]} == {"SDAR_ENV_TOKEN"} and "Environment" not in container


def test_every_environment_has_its_images():
    allowed = set(read("environment.yaml")["Parameters"]["Environment"]["AllowedValues"])
    kept = {r["RepositoryName"]["Fn::Sub"] for r in resources("store.yaml", "AWS::ECR::Repository").values()}
    assert allowed == set(EXTRAS) == {"alfworld", "webshop", "search_qa"} <= set(registry.names())
    assert kept == {f"${{Project}}-env-{name}" for name in allowed}


# --- the training node ------------------------------------------------------------------------------------------------


def test_instances_are_those_that_the_planner_knows():
    types = TRAINER["Parameters"]["InstanceType"]["AllowedValues"]
    assert set(types) <= set(load_catalogue().instances)
    assert {"p4d.24xlarge", "p4de.24xlarge", "p5.48xlarge", "p5e.48xlarge"} < set(types)
    assert set(TRAINER["Mappings"]["NetworkCards"]) == set(types)


@pytest.mark.parametrize(
    "kind, efa, wanted",
    [
        ("p4d.24xlarge", "true", 4),
        ("p5.48xlarge", "true", 32),
        ("p5en.48xlarge", "true", 16),
        ("p5.4xlarge", "true", 1),
        ("g6e.xlarge", "true", 0),
        ("p5.48xlarge", "false", 0),
    ],
)
def test_every_network_card_of_the_type_is_used(kind, efa, wanted):
    data = TRAINER["Resources"]["Node"]["Properties"]["LaunchTemplateData"]
    cards = Solved(TRAINER, InstanceType=kind, Efa=efa).solve(data["NetworkInterfaces"])
    assert [card["NetworkCardIndex"] for card in cards] == list(range(max(wanted, 1)))
    assert [card["DeviceIndex"] for card in cards] == [0] + [1] * (len(cards) - 1)
    assert sum(card["InterfaceType"].startswith("efa") for card in cards) == wanted
    assert all(card["Groups"] and card["DeleteOnTermination"] for card in cards)


@pytest.mark.parametrize(
    "market, reservation, wanted",
    [
        ("spot", "", "spot"),
        ("capacity-block", "cr-1", "capacity-block"),
        ("on-demand", "", None),
        ("on-demand", "cr-1", None),  # one that was paid for must be used
    ],
)
def test_markets(market, reservation, wanted):
    data = TRAINER["Resources"]["Node"]["Properties"]["LaunchTemplateData"]
    solved = Solved(TRAINER, Market=market, CapacityReservation=reservation).solve(data)
    assert solved.get("InstanceMarketOptions", {}).get("MarketType") == wanted
    target = solved.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget", {})
    assert target.get("CapacityReservationId", "") == reservation
    assert solved["MetadataOptions"]["HttpTokens"] == "required"


def test_overrides_pass_the_parameters_pattern():
    pattern = TRAINER["Parameters"]["Overrides"]["AllowedPattern"]
    assert re.fullmatch(pattern, json.dumps(["a=b", "x=${y.z}", "note='two words'"]))
    assert not re.fullmatch(pattern, '["a"]\nSETTINGS\nrm -rf /')


def test_a_wheel_passes_the_parameters_pattern():
    pattern = TRAINER["Parameters"]["FlashAttn"]["AllowedPattern"]
    wheel = "flash_attn-2.8.3+cu13-cp311-linux_x86_64.whl"
    for text in ("", f"releases/{wheel}", f"https://example.org/a/{wheel}"):
        assert re.fullmatch(pattern, text)
    for text in (wheel, f"releases/a b/{wheel}", f"releases/$(x)/{wheel}", "https://example.org/"):
        assert not re.fullmatch(pattern, text)


def test_the_runs_settings_are_named_in_one_file():
    """So that a change of a setting's name is a change of one line."""
    supervisor = AWS / "node" / "supervise.py"
    for path in [*TEMPLATES, *Path(AWS / "node").glob("*.sh"), AWS / "launch.py"]:
        assert "sdar.checkpoints" not in path.read_text() and "run_dir" not in path.read_text(), path.name
    assert supervisor.read_text().count('"sdar.checkpoints.s3"') == 1
