#!/usr/bin/env python3
"""Look after a fleet of dsocr-batch on AWS. Needs boto3 and the usual credentials.

    fleet.py check --shards 8 --market spot --input s3://BUCKET/FOLDER --tag fleet=greek
    fleet.py submit --stack dsocr-batch --shards 8 -- --mode grounded
    fleet.py status JOB_ID
    fleet.py run --tag fleet=greek -- systemctl status 'dsocr-batch@*'

``check`` changes nothing: is the quota of vCPUs enough, is there a corpus, can Systems Manager
reach the instances? ``submit`` sends a corpus as an array job to the stack of batch.yaml.
``status`` counts its children and says why some failed. ``run`` runs a shell command on all
instances with a tag. Exit status: 0 all well, 1 something is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

QUOTAS = {
    "on-demand": ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "spot": ("L-3819A6DF", "All G and VT Spot Instance Requests"),
}
"""Codes and names in Service Quotas (service ``ec2``, one value a region); the unit is vCPUs."""

VCPUS_OF_G6_XLARGE = 4
LARGEST_ARRAY = 10_000
"""https://docs.aws.amazon.com/batch/latest/userguide/array_jobs.html: between 2 and 10,000."""

MOST_INSTANCES_A_COMMAND = 50
"""https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html"""

POLL_S = 2

MEANINGS = {
    2: "wrong usage, or another run holds the output",
    3: "finished, but some page or document failed",
    4: "no input, or its store is away",
    5: "no usable engine",
    6: "output not writable, its store is away, or disk full",
    7: "stopped by --max-runtime",
    8: "too many failures",
}
"""Exit statuses of ``dsocr-batch run``."""


class FleetError(Exception):
    """What a person has to change before the command can work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(boto3.Session(region_name=arguments.region), arguments))
    except (FleetError, ClientError, BotoCoreError) as error:
        print(f"fleet.py: {error}", file=sys.stderr)
        return 2


def check(session: boto3.Session, arguments: argparse.Namespace) -> int:
    """Print one line for each thing that a fleet needs."""
    lines = [_quota(session, arguments.market, arguments.shards)]
    if arguments.input is not None:
        lines.append(_corpus(session, arguments.input))
    if arguments.tag is not None:
        lines.append(_instances(session, arguments.tag))
    for good, text in lines:
        print(f"{'ok ' if good else 'NOT'}  {text}")
    return 0 if all(good for good, _ in lines) else 1


def submit(session: boto3.Session, arguments: argparse.Namespace) -> int:
    """Submit the job definition of a stack, with more options for the run."""
    if not 1 <= arguments.shards <= LARGEST_ARRAY:
        raise FleetError(f"--shards must be between 1 and {LARGEST_ARRAY}")
    queue, definition = _outputs(session, arguments.stack, "Queue", "Job")
    batch = session.client("batch")
    request: dict[str, Any] = {
        "jobName": arguments.name,
        "jobQueue": queue,
        "jobDefinition": definition,
    }
    if arguments.shards > 1:
        request["arrayProperties"] = {"size": arguments.shards}
    if arguments.options:
        found = batch.describe_job_definitions(jobDefinitions=[definition])["jobDefinitions"]
        command = found[0]["containerProperties"]["command"]
        request["containerOverrides"] = {"command": [*command, *arguments.options]}
    if arguments.dry_run:
        print(f"would submit {request}")
        return 0
    print(batch.submit_job(**request)["jobId"])
    return 0


def status(session: boto3.Session, arguments: argparse.Namespace) -> int:
    """Print how many children are in which state, and why some failed."""
    batch = session.client("batch")
    jobs = batch.describe_jobs(jobs=[arguments.job])["jobs"]
    if not jobs:
        raise FleetError(f"no job {arguments.job} in this region; AWS forgets ended jobs in time")
    [job] = jobs
    array = job.get("arrayProperties", {})
    states = array.get("statusSummary") or {job["status"]: 1}
    print(", ".join(f"{count} {state}" for state, count in states.items() if count))
    failed = [job] if job["status"] == "FAILED" and not array else []
    if array and states.get("FAILED"):
        pages = batch.get_paginator("list_jobs").paginate(
            arrayJobId=arguments.job, jobStatus="FAILED"
        )
        failed = [child for page in pages for child in page["jobSummaryList"]]
    for reason, count in Counter(map(_why, failed)).most_common():
        print(f"{count} failed: {reason}")
    return 1 if failed else 0


def run(session: boto3.Session, arguments: argparse.Namespace) -> int:
    """Run a shell command on all instances with a tag, and print what each says."""
    command = shlex.join(arguments.words) if len(arguments.words) > 1 else arguments.words[0]
    if arguments.dry_run:
        print(f"would run on instances with {arguments.tag}: {command}")
        return 0
    instances = sorted(_running(session, arguments.tag))
    if not instances:
        raise FleetError(f"no running instance has the tag {arguments.tag}")
    ssm = session.client("ssm")
    commands: dict[str, str] = {}
    for start in range(0, len(instances), MOST_INSTANCES_A_COMMAND):
        some = instances[start : start + MOST_INSTANCES_A_COMMAND]
        sent = ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=some,
            Parameters={"commands": [command], "executionTimeout": [str(arguments.timeout)]},
        )["Command"]
        commands.update(dict.fromkeys(some, sent["CommandId"]))
    failed = 0
    for instance, command_id in commands.items():
        answer = _answer(ssm, command_id, instance, arguments.timeout)
        output = answer["StandardOutputContent"] + answer["StandardErrorContent"]
        print(f"{instance}: {answer['Status']}\n{output}".rstrip())
        failed += answer["Status"] != "Success"
    return 1 if failed else 0


def _quota(session: boto3.Session, market: str, shards: int) -> tuple[bool, str]:
    code, name = QUOTAS[market]
    quotas = session.client("service-quotas")
    vcpus = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
    wanted = shards * VCPUS_OF_G6_XLARGE
    text = f"quota {name} ({code}): {vcpus:.0f} vCPUs, {shards} g6.xlarge take {wanted}"
    return vcpus >= wanted, text


def _corpus(session: boto3.Session, url: str) -> tuple[bool, str]:
    match = re.fullmatch(r"s3://([^/]+)/(.+?)/?", url)
    if match is None:
        raise FleetError(f"--input {url}: give it as s3://BUCKET/FOLDER")
    bucket, folder = match.groups()
    pages = session.client("s3").get_paginator("list_objects_v2")
    sizes = [
        entry["Size"]
        for page in pages.paginate(Bucket=bucket, Prefix=f"{folder}/")
        for entry in page.get("Contents", [])
        if entry["Key"].lower().endswith(".pdf")
    ]
    return bool(sizes), f"{url}: {len(sizes)} PDFs, {sum(sizes) / 1e9:.2f} GB"


def _running(session: boto3.Session, tag: str) -> set[str]:
    key, equals, value = tag.partition("=")
    if not (key and equals and value):
        raise FleetError(f"--tag {tag}: give it as KEY=VALUE")
    pages = session.client("ec2").get_paginator("describe_instances")
    filters = [
        {"Name": f"tag:{key}", "Values": [value]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    return {
        instance["InstanceId"]
        for page in pages.paginate(Filters=filters)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def _instances(session: boto3.Session, tag: str) -> tuple[bool, str]:
    running = _running(session, tag)
    online = {
        instance["InstanceId"]
        for page in session.client("ssm").get_paginator("describe_instance_information").paginate()
        for instance in page["InstanceInformationList"]
        if instance["PingStatus"] == "Online"
    }
    text = f"{tag}: {len(running)} instances run"
    if running - online:
        text += f"; Systems Manager cannot reach {', '.join(sorted(running - online))}"
    return bool(running) and running <= online, text


def _outputs(session: boto3.Session, stack: str, *names: str) -> list[str]:
    stacks = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    values = {item["OutputKey"]: item["OutputValue"] for item in stacks[0].get("Outputs", [])}
    if missing := set(names) - set(values):
        raise FleetError(f"stack {stack} has no output {sorted(missing)}: is it batch.yaml?")
    return [values[name] for name in names]


def _why(child: dict[str, Any]) -> str:
    code = child.get("container", {}).get("exitCode")
    if code is None:
        return str(child.get("statusReason", "no reason given"))
    return f"exit status {code}" + (f", {MEANINGS[code]}" if code in MEANINGS else "")


def _answer(ssm: Any, command_id: str, instance: str, timeout_s: int) -> dict[str, Any]:
    """Return how a command ended on an instance, after its end or the time-out."""
    of_instance = {"CommandId": command_id, "InstanceId": instance}
    tries = {"Delay": POLL_S, "MaxAttempts": max(1, timeout_s // POLL_S)}
    # The waiter also raises for a command that failed: its status tells.
    with suppress(WaiterError):
        ssm.get_waiter("command_executed").wait(**of_instance, WaiterConfig=tries)
    answer: dict[str, Any] = ssm.get_command_invocation(**of_instance)
    return answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--region", help="the region of the credentials, if not given")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sub = commands.add_parser("check", help="is all there that a fleet needs?")
    sub.add_argument("--shards", type=int, default=1, help="GPUs that are to run at once [1]")
    sub.add_argument("--market", choices=list(QUOTAS), default="spot")
    sub.add_argument("--input", metavar="s3://BUCKET/FOLDER", help="the corpus")
    sub.add_argument("--tag", metavar="KEY=VALUE", help="of the instances")
    sub.set_defaults(command=check)

    sub = commands.add_parser("submit", help="send a corpus as an array job")
    sub.add_argument("--stack", required=True, help="the stack made from batch.yaml")
    sub.add_argument("--shards", type=int, required=True)
    sub.add_argument("--name", default="dsocr-batch")
    sub.add_argument("--dry-run", action="store_true", help="show the request, send nothing")
    sub.add_argument("options", nargs="*", help="of dsocr-batch run, after --")
    sub.set_defaults(command=submit)

    sub = commands.add_parser("status", help="how far is an array job, and what failed?")
    sub.add_argument("job")
    sub.set_defaults(command=status)

    sub = commands.add_parser("run", help="run a shell command on all instances with a tag")
    sub.add_argument("--tag", metavar="KEY=VALUE", required=True)
    sub.add_argument("--timeout", type=int, default=3600, help="seconds [3600]")
    sub.add_argument("--dry-run", action="store_true", help="show the command, send nothing")
    sub.add_argument("words", nargs="+", metavar="COMMAND", help="after --")
    sub.set_defaults(command=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
