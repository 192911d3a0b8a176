"""Move the objects of an S3 store from one prefix to another: approved, proven, with a way back.

  objectmove plan    FROM TO          list exactly what would move, and keep the plan in the bucket
  objectmove apply   FROM TO [PLAN]   carry out the approved plan, or resume it
  objectmove verify  FROM TO [PLAN]   prove by a fresh listing where each planned object is
  objectmove undo    FROM TO [PLAN]   move the plan's objects back, within 15 minutes
  objectmove resume  FROM TO [PLAN]   resume an unfinished plan, or its undo
  objectmove settle  FROM TO [PLAN]   show objects in doubt, and say whether they were taken
  objectmove probe   FROM             find out what the store honours, on scratch objects

FROM and TO are s3://bucket/prefix/. PLAN is a plan's id; without it, the newest plan from FROM to
TO is meant.

  plan                 --match PATTERN (of the key after FROM), --limit OBJECTS (default 1000)
  apply, undo, settle  --approve SHA (the hash that was shown, or its first 12 characters)
  apply, undo, resume  --consumer-stands-still [SINCE] (confirm that nothing consumes from TO)
  resume               --stop-here (copy nothing more; finish what has landed)
  settle               --taken KEY, --not-taken KEY (once for each key)
  all                  --json (one JSON document), @FILE (more arguments, one a line)

AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and if you need them
AWS_SESSION_TOKEN, AWS_REGION and AWS_CA_BUNDLE, come from the environment, else from the profile
AWS_PROFILE of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not proven, 4 the store could not be read,
5 refused or waiting for an approval, 130 interrupted.
"""

import json
import os
import re
import shlex
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, TypeAdapter

from .bucket import S3Bucket, format_time
from .carry import Operator, WatchedWorker
from .errors import MoveError, PlanError, StoreError
from .plan import PLANS, Plan, fetch_plan
from .planning import make_plan
from .probe import FAULTS, survey
from .result import MoveResult, list_unfinished, verify_plan
from .run import FROM_NOW_ON, Run
from .settling import choose_answers, digest_answers, list_doubts

Facts = dict[str, Any]
Done = tuple[Facts, int]
"""What a command has to say, and its exit code."""

#: How long a plan may be applied, and how many characters of a hash approve it.
_LIFETIME = timedelta(minutes=15)
_SHORT_HASH = 12
#: FROM and TO in one bucket, with a NUL between them, which no argument can contain.
_ENDS = re.compile("s3://([^/]+)/(|.*/)\\0s3://\\1/(|.*/)", re.DOTALL)
_ADDRESS = re.compile(r"(https?)://([^/:]+(?::\d+)?)/?")
_SINCE = TypeAdapter(AwareDatetime)
_PROVEN = {"in_place", "gone_after_landed"}
_HOLD = WatchedWorker(words="nobody is paused: make sure that nobody else moves these objects")


def main(words: Sequence[str] | None = None) -> int:
    words = words or sys.argv[1:]
    args = _parse(words)
    try:
        facts, code = _VERBS[args.verb](args, _connect(args))
    except (MoveError, KeyboardInterrupt) as error:
        facts = {
            "error": str(error),
            "approval": getattr(error, "needed", ""),
            "next": [getattr(error, "way_on", "")],
        }
        code = getattr(error, "EXIT_CODE", 130)
    ends = shlex.join([args.source, args.to])
    commands = []
    for way_on in filter(None, facts.pop("next", ())):
        verb, _, rest = way_on.partition(" ")
        commands.append(f"objectmove {verb} {ends} {rest}".rstrip())
    approval = facts.get("approval")
    if approval and not commands:
        command = shlex.join(["objectmove", *words, "--approve", approval[:_SHORT_HASH]])
        if args.verb == "undo":
            command += " --consumer-stands-still"
            facts["confirms"] = f"that nothing consumes from {args.to} while this runs"
        commands.append(command)
    facts |= {"exit_code": code, "next": commands}
    if args.json:
        at = format_time(datetime.now(UTC))
        facts = {"schema": f"objectmove/{args.verb}/1", "at": at, **facts}
        text = json.dumps(facts, indent=2, default=str)
    else:
        text = "\n".join(_list_lines(facts))
    sys.stdout.write(f"{text}\n")
    return code


def _list_lines(facts: Facts) -> Iterator[str]:
    """Yield lines for a person, without what is empty; what cannot be printed is escaped."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _list_lines(value)
        elif isinstance(value, list):
            for each in value:
                row = each.values() if isinstance(each, dict) else [each]
                yield f"{name:<20} {'  '.join(map(_escape, row))}"
        elif value:
            yield f"{name:<20} {_escape(value)}"


def _escape(value: object) -> str:
    text = "yes" if value is True else str(value)
    return text if text.isprintable() else ascii(text)


def _parse(words: Sequence[str]) -> Namespace:
    parser = ArgumentParser(
        "objectmove",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    add("verb", choices=_VERBS)
    add("source", metavar="FROM")
    add("to", metavar="TO", nargs="?", default="")
    add("plan", metavar="PLAN", nargs="?", default="")
    add("--match", default="*")
    add("--limit", type=int, default=1000)
    add("--approve", default="")
    add("--consumer-stands-still", nargs="?", type=_SINCE.validate_python, const=FROM_NOW_ON)
    for flag in ("--stop-here", "--json"):
        add(flag, action="store_true")
    for answer in ("--taken", "--not-taken"):
        add(answer, action="append", default=[])
    args = parser.parse_intermixed_args(words)
    ends = _ENDS.fullmatch(f"{args.source}\0{args.to or args.source}")
    if ends is None:
        parser.error("FROM and TO are s3://bucket/prefix/ in the same bucket")
    args.bucket, *args.ends = ends.groups()
    args.by = os.environ.get("USER", "unknown")
    return args


def _connect(args: Namespace) -> S3Bucket:
    profile = os.environ.get("AWS_PROFILE", "default")
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    profiles = ConfigParser(interpolation=None, strict=False)
    profiles.read(Path(path).expanduser(), "utf-8")
    profiles.read_dict({profile: os.environ})
    settings = profiles[profile]
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        if not settings.get(name):
            raise PlanError(f"{name.upper()} is not set: see objectmove --help")
    address = _ADDRESS.fullmatch(settings.get("aws_endpoint_url", ""))
    if address is None:
        raise PlanError("AWS_ENDPOINT_URL is not of the form https://host:port")
    return S3Bucket(
        endpoint=address[2],
        secure=address[1] == "https",
        bucket=args.bucket,
        access_key=settings["aws_access_key_id"],
        secret_key=settings["aws_secret_access_key"],
        session_token=settings.get("aws_session_token", ""),
        region=settings.get("aws_region", "us-east-1"),
        ca_file=settings.get("aws_ca_bundle", ""),
    )


def _plan(args: Namespace, bucket: S3Bucket) -> Done:
    now = datetime.now(UTC)
    plan = make_plan(
        bucket,
        header={
            "source": args.ends[0],
            "to": args.ends[1],
            "step": "objectmove",
            "made_at": now,
            "made_by": args.by,
            "expires_at": now + _LIFETIME,
            "limit_objects": args.limit,
            "others": _HOLD.words,
        },
        match=args.match,
    )
    header = plan.header
    shown = header.model_dump(mode="json", include={"objects", "bytes", "excluded", "expires_at"})
    keys = [row.key for row in plan.rows]
    facts = {"keys": keys, "plan": plan.id, "sha256": plan.sha256, **shown, "window": header.window}
    if not plan.rows:
        return facts, 3 if header.excluded else 0
    now = bucket.read_clock()
    puts = [plan.make_put()]
    (answer,) = bucket.send(puts, signed_at=now, expires_s=header.timing.expires_s)
    if answer.code:
        raise StoreError(f"the plan cannot be kept in the bucket: {answer.code}")
    short = plan.sha256[:_SHORT_HASH]
    return {**facts, "next": [f"apply {plan.id} --approve {short}"]}, 0


def _find(args: Namespace, bucket: S3Bucket) -> Plan:
    """Return the plan that the arguments name, or the newest one."""
    listed = bucket.list_objects(PLANS)
    for seen in sorted(listed, key=lambda seen: seen.last_modified, reverse=True):
        plan = fetch_plan(bucket, seen.key.removeprefix(PLANS))
        is_newest = not args.plan and [plan.header.source, plan.header.to] == args.ends
        if is_newest or args.plan in (plan.id, plan.undo_id):
            return plan
    raise PlanError(f"the bucket keeps no plan {args.plan} from {args.source} to {args.to}")


def _make_run(args: Namespace, bucket: S3Bucket, plan: Plan) -> Run:
    operator = Operator(
        name=args.by,
        hold=_HOLD,
        notice=cache(lambda text: print(text, file=sys.stderr)),  # noqa: T201
    )
    still = args.consumer_stands_still
    return Run(bucket, plan, operator, still_since=still, stop_here=args.stop_here)


def _complete(args: Namespace, needed: str) -> str:
    """Return the hash if its first characters are typed, else what is typed."""
    is_typed = len(args.approve) >= _SHORT_HASH and needed.startswith(args.approve)
    return needed if is_typed else args.approve


def _carry(args: Namespace, bucket: S3Bucket) -> Done:
    plan = _find(args, bucket)
    approval = _complete(args, plan.get_approval(args.verb))
    return _report(_make_run(args, bucket, plan).carry_out(args.verb, approval))


def _settle(args: Namespace, bucket: S3Bucket) -> Done:
    plan = _find(args, bucket)
    doubts = list_doubts(bucket, plan)
    answers = choose_answers(doubts, args.taken, args.not_taken)
    needed = digest_answers(plan, answers)
    if args.approve:
        run = _make_run(args, bucket, plan)
        return _report(run.settle(args.taken, args.not_taken, _complete(args, needed)))
    rows = [{"key": doubt.key, "why": doubt.row.why} for doubt in doubts if doubt.is_open]
    facts = {"plan": plan.id, "rows": rows}
    if answers:
        return {**facts, "approval": needed}, 5
    return facts, 3 if rows else 0


def _report(done: MoveResult) -> Done:
    """Return what a run did; exit with 3 if something is left to do, or was left out."""
    facts = done._asdict()
    is_open = done.skipped or done.unproven or done.waiting or done.stopped
    facts["next"] = facts.pop("ways_on")
    return facts, 3 if is_open else 0


def _verify(args: Namespace, bucket: S3Bucket) -> Done:
    plan = _find(args, bucket)
    found = verify_plan(bucket, plan)
    seen = {name for name, count in found.counts.items() if count}
    ways_on = [each.way_on for each in list_unfinished(bucket)]
    facts = {"plan": plan.id, **found._asdict(), "next": ways_on}
    return facts, 0 if seen <= _PROVEN else 3


def _probe(args: Namespace, bucket: S3Bucket) -> Done:
    instead = survey(bucket, source=args.ends[0])
    honours = {name: not text for name, text in instead.items()}
    is_usable = all(honours[name] for name in FAULTS)
    facts = {"store": bucket.url, "honours": honours, "instead": instead}
    return facts, 0 if is_usable else 5


_VERBS = {
    "plan": _plan,
    "apply": _carry,
    "verify": _verify,
    "undo": _carry,
    "resume": _carry,
    "settle": _settle,
    "probe": _probe,
}
