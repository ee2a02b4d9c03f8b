"""scripts/aws: the templates deployed to moto, and fleet.py at work on what they make."""

from __future__ import annotations

import email.policy
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from email import message_from_bytes
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from moto.core import enable_iam_authentication
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend

from aws import fleet
from command import read
from dsocr_batch.pipeline.publish import FAREWELL_S
from s3_server import BUCKET, Fault, S3Server

pytestmark = pytest.mark.slow  # moto takes seconds to begin

AWS = Path(__file__).parents[1] / "scripts" / "aws"
REGION = "eu-central-1"
PLACES = {
    "InputBucket": "library",
    "InputPrefix": "greek/corpus",
    "OutputBucket": "library",
    "OutputPrefix": "greek/texts",
}
ROLES = {"instance-role.yaml": "Role", "batch.yaml": "JobRole"}
"""What reads and writes, by the template that makes it."""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws(config={"batch": {"use_docker": False}}):
        yield boto3.Session(region_name=REGION)


def deploy(account: boto3.Session, template: str, **parameters: str) -> dict[str, str]:
    stack = template.removesuffix(".yaml")
    cloudformation = account.client("cloudformation")
    cloudformation.create_stack(
        StackName=stack,
        TemplateBody=_as_moto_wants_it((AWS / template).read_text()),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    [described] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    assert described["StackStatus"] == "CREATE_COMPLETE"
    return {item["OutputKey"]: item["OutputValue"] for item in described["Outputs"]}


def _as_moto_wants_it(template: str) -> str:
    # AWS Batch has a role of its own for compute environments that name none; moto wants a name.
    return template.replace(
        "      ReplaceComputeEnvironment: false",
        "      ServiceRole: !GetAtt JobRole.Arn\n      ReplaceComputeEnvironment: false",
    )


def deploy_batch(account: boto3.Session, **places: str) -> dict[str, str]:
    ec2 = account.client("ec2")
    return deploy(
        account,
        "batch.yaml",
        Image="dsocr-batch:0.1.0",
        Subnets=ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        SecurityGroups=ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
        **(places or PLACES),
    )


def deploy_role(account: boto3.Session, template: str, **places: str) -> str:
    """Deploy a template and return the name of the role that reads and writes."""
    iam = account.client("iam")
    if template == "batch.yaml":
        deploy_batch(account, **places)
    else:
        deploy(account, template, **places)
    role = _resource(account, template, ROLES[template])
    # moto keeps a role's own policies in a form that it cannot read itself, and makes the role
    # without the managed ones that it names.
    policies = iam_backends[DEFAULT_ACCOUNT_ID]["aws"].get_role(role).policies
    for name, document in tuple(policies.items()):
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))
    if not policies:
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        iam.attach_role_policy(RoleName=role, PolicyArn=_resource(account, template, "Policy"))
    return role


def _resource(account: boto3.Session, template: str, name: str) -> str:
    found = account.client("cloudformation").describe_stack_resource(
        StackName=template.removesuffix(".yaml"), LogicalResourceId=name
    )
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


def statements_of(account: boto3.Session, role: str) -> list[dict[str, Any]]:
    """Return all that a role is allowed."""
    iam = account.client("iam")
    documents = [
        iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ] + [
        iam.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId="v1")["PolicyVersion"][
            "Document"
        ]
        for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    ]
    return [statement for document in documents for statement in document["Statement"]]


def keys_of(account: boto3.Session, role: str) -> dict[str, str]:
    """Return credentials of a role, by the names of the environment."""
    arn = account.client("iam").get_role(RoleName=role)["Role"]["Arn"]
    keys = account.client("sts").assume_role(RoleArn=arn, RoleSessionName="i-1")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }


# --- what an instance and a job may do -------------------------------------------------------


@pytest.fixture
def s3_of_role(
    account: boto3.Session, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """S3 with the rights of a role, enforced as far as moto does (it ignores conditions)."""
    role = deploy_role(account, request.param, **PLACES)
    s3 = account.client("s3")
    for bucket in ("library", "other"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("greek/corpus/a.pdf", "greek/texts/a.md", "greek/corpus-2/a.pdf"):
        s3.put_object(Bucket="library", Key=key, Body=b"text")
    s3.put_object(Bucket="other", Key="greek/corpus/a.pdf", Body=b"text")
    for name, value in keys_of(account, role).items():
        monkeypatch.setenv(name, value)
    with enable_iam_authentication():
        yield boto3.Session(region_name=REGION).client("s3")


@pytest.mark.parametrize("s3_of_role", ROLES, indirect=True)
def test_a_role_may_touch_nothing_but_its_folders(s3_of_role: Any) -> None:
    s3_of_role.put_object(Bucket="library", Key="greek/texts/b.md", Body=b"text")
    s3_of_role.delete_object(Bucket="library", Key="greek/texts/b.md")
    for action, bucket, key in (
        ("put_object", "library", "greek/corpus/a.pdf"),
        ("delete_object", "library", "greek/corpus/a.pdf"),
        ("get_object", "library", "greek/corpus-2/a.pdf"),
        ("put_object", "library", "greek/texts-2/a.md"),
        ("delete_object", "library", "greek/texts-2/a.md"),
        ("get_object", "other", "greek/corpus/a.pdf"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(s3_of_role, action)(Bucket=bucket, Key=key)


@pytest.mark.parametrize("template", ROLES)
def test_listing_is_allowed_below_the_prefixes_alone(account: boto3.Session, template: str) -> None:
    role = deploy_role(account, template, **PLACES)
    assert _listable(statements_of(account, role)) == ["greek/corpus/*", "greek/texts/*"]


def _listable(statements: list[dict[str, Any]]) -> list[str]:
    listing = [item for item in statements if item["Action"] == "s3:ListBucket"]
    return [item["Condition"]["StringLike"]["s3:prefix"] for item in listing]


def test_an_instance_and_a_job_may_do_the_same_in_s3(account: boto3.Session) -> None:
    instance, job = (
        [
            statement
            for statement in statements_of(account, deploy_role(account, template, **PLACES))
            if "s3:" in json.dumps(statement["Action"])
        ]
        for template in ROLES
    )
    assert instance == job
    assert len(job) == 4


@pytest.fixture
def role_in_use(
    s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[dict[str, Any]]]:
    """What a role is allowed on the S3 server, which holds this process's children to it."""
    account = boto3.Session(region_name=s3.env["AWS_DEFAULT_REGION"])
    places = {**PLACES, "InputBucket": BUCKET, "OutputBucket": BUCKET}
    role = deploy_role(account, request.param, **places)
    statements = statements_of(account, role)
    # moto wants the deletion of several objects to be allowed on the bucket; S3 asks for each key.
    deletion = {
        "Effect": "Allow",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{BUCKET}",
    }
    account.client("iam").put_role_policy(
        RoleName=role,
        PolicyName="as-moto-wants-it",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [deletion]}),
    )
    for name, value in keys_of(account, role).items():
        monkeypatch.setenv(name, value)
    with enable_iam_authentication():
        yield statements
    moto_api_backend.reset()


@pytest.mark.parametrize("role_in_use", ROLES, indirect=True)
def test_a_run_asks_for_nothing_that_its_role_does_not_allow(
    s3: S3Server,
    role_in_use: list[dict[str, Any]],
    corpus: Path,
    script: Callable[..., Path],
) -> None:
    s3.put_tree(corpus, "greek/corpus")
    s3.requests.clear()
    # The bucket itself is asked after without a prefix, which the condition refuses.
    refused = s3.fault(Fault(method="HEAD", key="", times=100, status=403))
    source, target = (f"s3://{BUCKET}/{PLACES[name]}" for name in ("InputPrefix", "OutputPrefix"))
    options = ("--save-images", "--save-layout")
    assert read(source, script(), target, *options).status == 0
    assert s3.keys("greek/texts/sub/upper.json")
    assert s3.keys("greek/texts/.dsocr/locks/") == []
    assert read(source, script(), target, *options, "--overwrite", "--discard-raw").status == 0
    assert refused.met
    # Conditions are not enforced by moto. For an object S3 takes its key as the prefix.
    prefixes = [
        parse_qs(request.query)["prefix"][0] for request in s3.asked("GET", "") if request.query
    ]
    keys = [request.key for request in s3.asked("GET", ".+") + s3.asked("HEAD", ".+")]
    assert "greek/corpus/" in prefixes
    for asked in prefixes + keys:
        assert any(fnmatchcase(asked, allowed) for allowed in _listable(role_in_use)), asked


@pytest.mark.parametrize("template", ROLES)
@pytest.mark.parametrize(
    "parameter, good, bad",
    [
        ("Prefix", ["a", "greek/texts", "a b-c_2.d"], ["", "/a", "a/", "*", "a*b", "a?b", "${a}"]),
        ("Bucket", ["library", "my.bucket-2"], ["", "a", "s3://library", "library/x", "a*", "A-b"]),
    ],
)
def test_a_parameter_cannot_widen_a_role(
    template: str, parameter: str, good: list[str], bad: list[str]
) -> None:
    found = re.findall(
        rf'^  \w+{parameter}:\n(?:    .*\n)*?    AllowedPattern: "(.*)"$',
        (AWS / template).read_text(),
        re.MULTILINE,
    )
    assert len(found) == 2
    for pattern in found:
        assert all(re.fullmatch(pattern, value) for value in good)
        assert not any(re.fullmatch(pattern, value) for value in bad)


def test_only_systems_manager_is_allowed_on_everything(account: boto3.Session) -> None:
    statements = statements_of(account, deploy_role(account, "instance-role.yaml", **PLACES))
    everywhere = {
        action.partition(":")[0]
        for statement in statements
        if statement["Resource"] == "*"
        for action in statement["Action"]
    }
    assert everywhere == {"ssm", "ssmmessages", "ec2messages"}
    assert "*" not in json.dumps([item["Action"] for item in statements])


def test_the_log_group_is_the_one_that_the_agent_writes_to(account: boto3.Session) -> None:
    deploy(account, "instance-role.yaml", **PLACES)
    [group] = account.client("logs").describe_log_groups()["logGroups"]
    agent = json.loads((AWS / "cloudwatch-agent.json").read_text())
    [collected] = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert collected["log_group_name"] == group["logGroupName"]
    unit = (AWS / "dsocr-batch@.service").read_text()
    assert collected["file_path"].replace("*.log", "gpu-%i.log") in unit


# --- the array job --------------------------------------------------------------------------


def test_a_corpus_is_submitted_as_an_array_with_more_options(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy_batch(account)
    assert fleet.main(["submit", "--stack", "batch", "--shards", "8", "--", "--mode", "x"]) == 0
    job_id = capsys.readouterr().out.strip()
    [job] = account.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    assert job["arrayProperties"]["size"] == 8
    assert job["container"]["command"][-4:] == ["--shard-from", "auto", "--mode", "x"]


def test_a_corpus_of_one_shard_is_no_array(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy_batch(account)
    assert fleet.main(["submit", "--stack", "batch", "--shards", "1"]) == 0
    job_id = capsys.readouterr().out.strip()
    [job] = account.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    assert "arrayProperties" not in job


def test_a_dry_run_submits_nothing(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = deploy_batch(account)["Queue"]
    assert fleet.main(["submit", "--stack", "batch", "--shards", "8", "--dry-run"]) == 0
    assert "'size': 8" in capsys.readouterr().out
    for status in ("SUBMITTED", "RUNNABLE", "RUNNING", "SUCCEEDED", "FAILED"):
        jobs = account.client("batch").list_jobs(jobQueue=queue, jobStatus=status)
        assert jobs["jobSummaryList"] == []


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    "command, told",
    [
        ("submit --stack batch --shards 0", "between 1 and 10000"),
        ("submit --stack batch --shards 10001", "between 1 and 10000"),
        ("submit --stack nowhere --shards 2", "nowhere does not exist"),
        ("status no-such-job", "no job no-such-job"),
        ("run --tag fleet -- uptime", "KEY=VALUE"),
        ("run --tag fleet=greek -- uptime", "no running instance has the tag fleet=greek"),
    ],
)
def test_what_cannot_work_is_told(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleet.main(command.split()) == 2
    assert told in capsys.readouterr().err


def _retried(rules: list[dict[str, str]], **end: str) -> bool:
    """Whether AWS Batch tries a job again: the first rule that matches, else yes.

    https://docs.aws.amazon.com/batch/latest/APIReference/API_EvaluateOnExit.html
    """
    for rule in rules:
        conditions = {key: value for key, value in rule.items() if key != "action"}
        if all(
            end.get(key, "").startswith(value[:-1])
            if value.endswith("*")
            else end.get(key) == value
            for key, value in conditions.items()
        ):
            return rule["action"].upper() == "RETRY"
    return True


def test_a_lost_machine_is_tried_again_and_a_wrong_setting_is_not(account: boto3.Session) -> None:
    job = deploy_batch(account)["Job"]
    batch = account.client("batch")
    [definition] = batch.describe_job_definitions(jobDefinitions=[job])["jobDefinitions"]
    rules = definition["retryStrategy"]["evaluateOnExit"]
    assert _retried(rules, onStatusReason="Host EC2 (instance i-0123) terminated.", onReason="")
    assert _retried(rules, onReason="CannotPullContainerError: timeout")
    retried = {code for code in range(256) if _retried(rules, onExitCode=str(code), onReason="")}
    assert {1, 130, 137, 139, 143} <= retried  # a bug, and ends by signals
    assert retried.isdisjoint(range(2, 9))


def test_a_job_reads_from_s3_and_writes_to_s3(account: boto3.Session) -> None:
    job = deploy_batch(account)["Job"]
    batch = account.client("batch")
    [definition] = batch.describe_job_definitions(jobDefinitions=[job])["jobDefinitions"]
    assert definition["parameters"] == {
        "input": "s3://library/greek/corpus",
        "output": "s3://library/greek/texts",
    }
    command = definition["containerProperties"]["command"]
    assert command[command.index("--input-dir") + 1] == "Ref::input"
    assert command[command.index("--output-dir") + 1] == "Ref::output"


def test_a_container_is_given_the_time_to_bring_up_its_journals(account: boto3.Session) -> None:
    deploy_batch(account)
    data = account.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=_resource(account, "batch.yaml", "LaunchTemplate")
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    user_data = message_from_bytes(b64decode(data["UserData"]), policy=email.policy.default)
    [script] = user_data.iter_parts()
    assert script.get_content_type() == "text/x-shellscript"
    text = script.get_content()
    assert text.startswith("#!/bin/bash\n")
    match = re.search(
        r"^echo ECS_CONTAINER_STOP_TIMEOUT=(\d+)s >> /etc/ecs/ecs.config$", text, re.MULTILINE
    )
    assert match is not None
    assert FAREWELL_S + 15 <= int(match[1]) < 120  # the notice of Spot


# --- what fleet.py says about it ------------------------------------------------------------


def stubbed(
    monkeypatch: pytest.MonkeyPatch, service: str, *answers: tuple[str, dict[str, Any]]
) -> None:
    """Let a service answer what moto cannot; the answers must fit AWS's own description of it."""
    client = boto3.client(service, region_name=REGION)
    stubber = Stubber(client)
    for operation, answer in answers:
        stubber.add_response(operation, answer)
    stubber.activate()
    real = boto3.Session.client

    def client_of(self: boto3.Session, name: str, **options: Any) -> Any:
        return client if name == service else real(self, name, **options)

    monkeypatch.setattr(boto3.Session, "client", client_of)


@pytest.mark.usefixtures("account")
def test_the_end_of_an_array_is_told_by_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {"SUCCEEDED": 5, "FAILED": 3, "RUNNING": 0}
    job = dict.fromkeys(("jobName", "jobId", "jobQueue", "jobDefinition"), "j") | {
        "startedAt": 0,
        "status": "FAILED",
        "arrayProperties": {"size": 8, "statusSummary": states},
    }
    children: list[dict[str, Any]] = [
        {"jobId": "j:1", "jobName": "j", "container": {"exitCode": 3}},
        {"jobId": "j:4", "jobName": "j", "container": {"exitCode": 3}},
        {"jobId": "j:6", "jobName": "j", "statusReason": "Host EC2 (instance i-1) terminated."},
    ]
    stubbed(
        monkeypatch,
        "batch",
        ("describe_jobs", {"jobs": [job]}),
        ("list_jobs", {"jobSummaryList": children[:2], "nextToken": "more"}),
        ("list_jobs", {"jobSummaryList": children[2:]}),
    )
    assert fleet.main(["status", "j"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "5 SUCCEEDED, 3 FAILED",
        "2 failed: exit status 3, finished, but some page or document failed",
        "1 failed: Host EC2 (instance i-1) terminated.",
    ]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("vcpus, enough", [(32.0, True), (31.0, False), (0.0, False)])
def test_the_quota_is_counted_in_vcpus(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    vcpus: float,
    enough: bool,
) -> None:
    quota = {"Quota": {"Value": vcpus}}
    stubbed(monkeypatch, "service-quotas", ("get_service_quota", quota))
    assert fleet.main(["check", "--shards", "8"]) == (0 if enough else 1)
    line = capsys.readouterr().out
    assert line.startswith("ok " if enough else "NOT")
    assert "L-3819A6DF" in line
    assert "8 g6.xlarge take 32" in line


def _check(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    quota = {"Quota": {"Value": 1000.0}}
    stubbed(monkeypatch, "service-quotas", ("get_service_quota", quota))
    return fleet.main(["check", *options])


@pytest.mark.parametrize(
    "folder, status, told",
    [
        ("corpus/", 0, "ok   s3://library/corpus/: 2 PDFs, 0.01 GB"),
        ("empty", 1, "NOT  s3://library/empty: 0 PDFs"),
    ],
)
def test_the_corpus_is_counted(
    account: boto3.Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    status: int,
    told: str,
) -> None:
    s3 = account.client("s3")
    s3.create_bucket(Bucket="library", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("corpus/a.pdf", "corpus/sub/b.PDF", "corpus/notes.txt", "corpus-2/c.pdf"):
        s3.put_object(Bucket="library", Key=key, Body=b"x" * 5_000_000)
    assert _check(monkeypatch, "--input", f"s3://library/{folder}") == status
    assert told in capsys.readouterr().out


def _launch(account: boto3.Session, number: int) -> list[str]:
    ec2 = account.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": "greek"}]}]
    started = ec2.run_instances(
        ImageId=image, MinCount=number, MaxCount=number, TagSpecifications=tags
    )
    return [instance["InstanceId"] for instance in started["Instances"]]


def test_an_instance_that_systems_manager_cannot_reach_is_named(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached, lost = _launch(account, 2)
    online = {"InstanceInformationList": [{"InstanceId": reached, "PingStatus": "Online"}]}
    stubbed(monkeypatch, "ssm", ("describe_instance_information", online))
    assert _check(monkeypatch, "--tag", "fleet=greek") == 1
    line = capsys.readouterr().out.splitlines()[1]
    assert line == f"NOT  fleet=greek: 2 instances run; Systems Manager cannot reach {lost}"


def test_a_command_goes_to_the_instances_with_the_tag(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    instances = _launch(account, 2)
    command = ["run", "--tag", "fleet=greek", "--", "systemctl", "status", "dsocr-batch@*"]
    assert fleet.main(command) == 0
    told = capsys.readouterr().out
    assert all(f"{instance}: Success" in told for instance in instances)
    [sent] = account.client("ssm").list_commands()["Commands"]
    assert sent["Parameters"]["commands"] == ["systemctl status 'dsocr-batch@*'"]


def test_a_dry_run_of_a_command_sends_nothing(
    account: boto3.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleet.main(["run", "--tag", "fleet=greek", "--dry-run", "--", "uptime"]) == 0
    assert "would run on instances with fleet=greek: uptime" in capsys.readouterr().out
    assert account.client("ssm").list_commands()["Commands"] == []


def test_a_failure_on_one_instance_fails_the_command(
    account: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(_launch(account, 2))
    sent = {"Command": {"CommandId": "3b1d2f4e-0000-4000-8000-000000000000"}}
    good = {"Status": "Success", "StandardOutputContent": "fine\n", "StandardErrorContent": ""}
    bad = {"Status": "Failed", "StandardOutputContent": "", "StandardErrorContent": "no GPU\n"}
    asked = "get_command_invocation"  # once by the waiter, once for the text
    stubbed(
        monkeypatch,
        "ssm",
        *(("send_command", sent), (asked, good), (asked, good), (asked, bad), (asked, bad)),
    )
    assert fleet.main(["run", "--tag", "fleet=greek", "--", "nvidia-smi"]) == 1
    assert capsys.readouterr().out == f"{first}: Success\nfine\n{second}: Failed\nno GPU\n"
