"""The components in a user's program, on the real engine and the embedded store."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
import yaml

from components import from_config
from synapse_media import contract
from synapse_media.cli import main
from synapse_media.engine.embedded import Running
from synapse_media.engine.session import EngineError
from tests.accounts import user_names
from tests.components.library import PROJECT, SOURCE, library, write
from tests.providers.project import Stack

TYPE = "synapse-media:index:S3Compatible"


def _store(running: Running) -> str:
    """A function of the program that declares a store on the embedded one."""
    return f"""
    def store(name, bucket, opts=None, server_name="example.com", **more):
        return S3Compatible(
            name,
            S3CompatibleArgs(
                server_name=server_name,
                bucket=bucket,
                endpoint={running.endpoint!r},
                iam_endpoint={running.iam_endpoint!r},
                settle_seconds=0,
                **more,
            ),
            opts,
        )
"""


LATER = """
    class Named(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("acme:infra:Named", name)

    # What the engine gives: not known in a preview, and an Output while the program runs.
    def later(value):
        return Named("source of " + value).urn.apply(lambda _: value)
"""


def _environment(store: Running) -> dict[str, str]:
    return {
        "S3_ACCESS_KEY_ID": store.access_key_id,
        "S3_SECRET_ACCESS_KEY": store.secret_access_key,
    }


def _client(service: str, store: Running) -> Any:
    return boto3.client(
        service,
        endpoint_url=store.endpoint if service == "s3" else store.iam_endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key_id,
        aws_secret_access_key=store.secret_access_key,
    )


def _resources(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.engine.export(stack.name)["deployment"].get("resources") or []
    return found


def _shown(stack: Stack) -> dict[str, Any]:
    """The stack's outputs, with secrets masked."""
    found: dict[str, Any] = json.loads(stack.engine.run(["stack", "output", "--json", "--stack", stack.name]).stdout)
    return found


def test_a_bucket_of_another_resource_and_what_follows_from_it(tmp_path: Path, embedded_store: Running) -> None:
    """Names, paths and policies are made of what the bucket is called, once that is known."""
    program = f"""{_store(embedded_store)}{LATER}
    media = store("media", later("library-later"), prefix=later("media/"))
    pulumi.export("bucket", media.bucket)
    pulumi.export("endpoint_url", media.endpoint_url)
    pulumi.export("access_key_id", media.access_key_id)
    pulumi.export("secret", media.secret_access_key)
    pulumi.export("proof", media.proof)
    publish({{"example.com": media.storage_outputs}})
    """
    stack = library(tmp_path / "project", "later", _environment(embedded_store), program)
    stack.up()
    assert stack.preview() == ()

    user = "synapse-media-library-later"
    iam = _client("iam", embedded_store)
    document = iam.get_user_policy(UserName=user, PolicyName="synapse-media")["PolicyDocument"]
    granted = document if isinstance(document, dict) else json.loads(document)
    assert [statement["Resource"] for statement in granted["Statement"]] == [
        ["arn:aws:s3:::library-later"],
        ["arn:aws:s3:::library-later/media/*"],
    ]
    path = f"/synapse-media/{PROJECT}/later/example.com/library-later/"
    assert iam.get_user(UserName=user)["User"]["Path"] == path
    assert "__str__" not in stack.state()

    outputs = stack.outputs("example.com")
    outputs.require_proof()
    plain = stack.engine.outputs("later")
    assert plain["bucket"] == outputs.bucket == "library-later"
    assert plain["endpoint_url"] == outputs.endpoint_url == embedded_store.endpoint
    assert plain["access_key_id"] == outputs.access_key_id
    assert plain["secret"] == outputs.secret_access_key
    assert [line["operation"] for line in plain["proof"]["lines"]]

    # The secret alone is one.
    shown = _shown(stack)
    assert {name for name, value in shown.items() if value == "[secret]"} == {"secret"}
    assert set(shown["store_secrets"]["example.com"].values()) == {"[secret]"}
    assert shown["stores"]["example.com"]["endpoint_url"] == embedded_store.endpoint
    assert outputs.secret_access_key not in json.dumps(shown)

    # And through a StackReference, which takes an output for a secret as a whole.
    other = f"""
    found = pulumi.StackReference("organization/{PROJECT}/later")
    pulumi.export("endpoint_url", found.require_output("stores").apply(lambda it: it["example.com"]["endpoint_url"]))
    pulumi.export("secrets", found.require_output("store_secrets"))
    """
    consumer = library(tmp_path / "consumer", "consumer", {}, other)
    consumer.up()
    assert _shown(consumer) == {"endpoint_url": embedded_store.endpoint, "secrets": "[secret]"}


def test_a_name_that_is_unknown_in_a_preview_replaces_nothing_unless_it_changes(
    tmp_path: Path,
    embedded_store: Running,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def program(bucket: str, tag: str) -> str:
        return f"""{_store(embedded_store)}{SOURCE}
    media = store("media", Source("name", "{bucket}", "{tag}").found)
    publish({{"example.com": media.storage_outputs}})
    """

    environment = _environment(embedded_store)
    stack = library(tmp_path / "project", "unknown", environment, program("library-unknown", "1"))
    stack.up()
    before = stack.outputs("example.com")

    def run() -> None:
        """With a preview before it, in which the name is unknown."""
        stack.engine.run(["up", "--yes", "--suppress-outputs", "--stack", stack.name])

    # The command says what to apply first, and asks for no word that would permit a real replacement.
    write(stack, program("library-unknown", "2"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(stack.engine.project)
    capfd.readouterr()
    assert main(["up", "--stack", "unknown", "--yes"]) == 3
    printed = "".join(capfd.readouterr())
    assert "pulumi up --stack unknown --target " in printed
    assert "pulumi-python:dynamic:Resource::name" in printed
    assert "into synapse-media:allow" not in printed
    assert "left unfinished" not in printed

    # The same name in the end: an update.
    run()
    after = stack.outputs("example.com")
    assert (after.bucket, after.access_key_id) == (before.bucket, before.access_key_id)

    # Another name: the preview can't see it, and the apply is refused with nothing of the store changed.
    write(stack, program("library-another", "3"))
    with pytest.raises(EngineError, match="marked for protection"):
        run()
    buckets = {one["Name"] for one in _client("s3", embedded_store).list_buckets()["Buckets"]}
    assert "library-unknown" in buckets
    assert "library-another" not in buckets
    users = user_names(_client("iam", embedded_store))
    assert "synapse-media-library-unknown" in users
    assert "synapse-media-library-another" not in users
    left = [one for one in _resources(stack) if one["type"].startswith("s3store:")]
    assert not [one["urn"] for one in left if one.get("delete")]
    write(stack, program("library-unknown", "4"))
    run()
    assert stack.outputs("example.com").access_key_id == before.access_key_id


def test_a_wrong_name_that_is_known_later_makes_nothing(tmp_path: Path, embedded_store: Running) -> None:
    program = f"""{_store(embedded_store)}{LATER}
    store("media", later("No Bucket"))
    """
    stack = library(tmp_path / "project", "wrong", _environment(embedded_store), program)
    with pytest.raises(EngineError) as refused:
        stack.up()
    assert "S3Compatible 'media': args.bucket is 'No Bucket'; allowed:" in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert not [one for one in _resources(stack) if one["type"].startswith("s3store:")]


def test_what_must_be_known_refuses_an_output_and_every_fault_is_told(tmp_path: Path, embedded_store: Running) -> None:
    program = f"""{_store(embedded_store)}{LATER}
    store("media", "Bad", method=later("goofys"), access="more", allow=["delete-bucke"])
    """
    stack = library(tmp_path / "project", "refused", _environment(embedded_store), program)
    with pytest.raises(EngineError) as refused:
        stack.up()
    said = str(refused.value)
    assert "args.method is a pulumi.Output; allowed: a value that is known when the program runs" in said
    assert "args.bucket is 'Bad'; allowed: 3 to 63 characters" in said
    assert "args.access is 'more'; allowed: least, full" in said
    assert "args.allow is 'delete-bucke'; allowed:" in said
    assert "Traceback" not in said


def test_options_reach_the_parts(tmp_path: Path, embedded_store: Running) -> None:
    program = f"""{_store(embedded_store)}{LATER}
    group, before = Named("group"), store("before", "library-before", server_name="before.com")
    opts = pulumi.ResourceOptions(parent=group, depends_on=[before], protect=True, retain_on_delete=True)
    store("media", "library-options", opts)
    """
    stack = library(tmp_path / "project", "options", _environment(embedded_store), program)
    stack.up()
    resources = _resources(stack)
    kinds = {one["urn"].split("::")[2] for one in resources}
    assert f"acme:infra:Named${TYPE}" in kinds
    parts = [one for one in resources if one["urn"].endswith("::media") and one["type"].startswith("s3store:")]
    assert len(parts) == 5
    before = next(one["urn"] for one in resources if one["urn"].endswith("Proof::before"))
    for part in parts:
        assert part["urn"].split("::")[2] == f"acme:infra:Named${TYPE}${part['type']}"
        assert part["protect"] is True
        assert part["retainOnDelete"] is True
        assert before in part["dependencies"]


def test_options_of_a_single_resource_are_refused(tmp_path: Path, embedded_store: Running) -> None:
    program = f"""{_store(embedded_store)}
    store("media", "library-ignored", pulumi.ResourceOptions(ignore_changes=["bucket"], version="1.0.0"))
    """
    stack = library(tmp_path / "project", "ignored", _environment(embedded_store), program)
    with pytest.raises(EngineError) as refused:
        stack.up()
    assert "opts.ignore_changes" in str(refused.value)
    assert "opts.version" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_component_of_before_is_found_under_its_alias(tmp_path: Path, embedded_store: Running) -> None:
    """The former type began with the project's name; a renamed component has it under its former name, too."""
    program = f"""{_store(embedded_store)}
    store("media", "library-alias")
    """
    stack = library(tmp_path / "project", "alias", _environment(embedded_store), program)
    stack.up()
    state = json.dumps(stack.engine.export("alias")).replace(TYPE, f"{PROJECT}:store:S3Compatible")
    stack.engine.replace_state("alias", json.loads(state))
    assert {step["op"] for step in stack.engine.preview("alias")["steps"]} == {"same"}
    write(stack, program.replace('"media", "library', '"renamed", "library'))
    opts = ', pulumi.ResourceOptions(aliases=[pulumi.Alias(name="media")])'
    main = stack.engine.project / "__main__.py"
    main.write_text(main.read_text().replace('"library-alias"', f'"library-alias"{opts}'))
    assert {step["op"] for step in stack.engine.preview("alias")["steps"]} == {"same"}


def test_two_stores_on_one_bucket_are_refused_before_anything_is_made(tmp_path: Path, embedded_store: Running) -> None:
    program = f"""{_store(embedded_store)}
    store("media", "library-twice")
    store("again", "library-twice", server_name="again.com", method="goofys")
    """
    stack = library(tmp_path / "project", "twice", _environment(embedded_store), program)
    with pytest.raises(EngineError, match="allowed: a bucket that no other store uses"):
        stack.up()


def test_the_commands_leave_a_programs_own_store_alone(
    tmp_path: Path,
    embedded_store: Running,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A mixed program: one store from the stack file, one declared; `up` and `diff` take neither for the other."""
    program = f"""{_store(embedded_store)}
    made = {{name: make(found) for name, found in from_config().items()}}

    class Group(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("acme:infra:Group", name)

    if not os.path.exists("gone"):
        own = store("media", "library-own", pulumi.ResourceOptions(parent=Group("group")))
        made["example.com"] = own.storage_outputs
    publish(made)
    """
    environment = _environment(embedded_store)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stack = library(tmp_path / "project", "mixed", environment, program)
    monkeypatch.chdir(stack.engine.project)
    common = {"provider": "s3_compatible", "settle_seconds": 0, "endpoint": embedded_store.endpoint}
    stores = {"matrix.example.com": {**common, "iam_endpoint": embedded_store.iam_endpoint, "bucket": "library-file"}}

    def command(name: str, *arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main([name, "--stack", "mixed", *arguments])
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    stack.write(stores)
    code, printed = command("up", "--yes")
    assert code == 0, printed
    assert "create Bucket of example.com" in printed
    assert "create Bucket of matrix.example.com" in printed
    assert command("diff")[0] == 0
    assert command("render", "--form", "plain", "--out", str(tmp_path / "rendered"))[0] == 0

    # Its change is shown under its homeserver, and judged by the steps.
    (stack.engine.project / "gone").touch()
    code, printed = command("diff")
    assert code == 3, printed
    assert "delete Bucket of example.com" in printed
    assert command("up", "--yes")[0] == 3
    (stack.engine.project / "gone").unlink()

    # A store that leaves the stack file is still refused, and the program's own one is not spoken of.
    stack.write({"matrix.example.com": {"method": "filesystem"}})
    code, printed = command("diff")
    assert code == 3
    assert "matrix.example.com" in printed
    assert "of example.com" not in printed
    stack.write(stores)

    code, printed = command("destroy", "--yes")
    assert code == 3
    assert "example.com" in printed
    stack.write(stores, ["example.com/delete-bucket", "matrix.example.com/delete-bucket"])
    code, printed = command("destroy", "--yes")
    assert code == 0, printed
    assert not [one for one in _resources(stack) if one["type"].startswith("s3store:")]


def test_a_component_that_is_renamed_in_a_run_that_fails(
    tmp_path: Path, embedded_store: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both names are in the state then, for one user and one key."""
    program = f"""{_store(embedded_store)}
    from pulumi.dynamic import Resource, ResourceProvider

    class Failing(ResourceProvider):
        def create(self, props):
            raise RuntimeError("fails")

    class Last(Resource):
        def __init__(self, proof):
            super().__init__(Failing(), "last", {{"proof": proof}})

    name = "new" if os.path.exists("renamed") else "old"
    own = store(name, "library-renamed", allow=["delete-bucket", "retire-key"])
    if os.path.exists("fails"):
        Last(own.proof)
    publish({{"example.com": own.storage_outputs}})
    """
    environment = _environment(embedded_store)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stack = library(tmp_path / "project", "renamed", environment, program)
    monkeypatch.chdir(stack.engine.project)
    config = yaml.safe_load(stack.path.read_text())
    config["config"] = {"synapse-media:allow": ["example.com/delete-bucket", "example.com/retire-key"]}
    stack.path.write_text(yaml.safe_dump(config))
    stack.up()
    for flag in ("renamed", "fails"):
        (stack.engine.project / flag).touch()
    with pytest.raises(EngineError, match="fails"):
        stack.up()
    (stack.engine.project / "fails").unlink()

    with pytest.raises(EngineError, match=r"that of another component of this stack.*run `synapse-media up`"):
        stack.up()
    code = main(["up", "--stack", "renamed", "--yes"])
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert main(["diff", "--stack", "renamed"]) == 0
    # The former component's key goes, as `allow` says.
    key = stack.engine.outputs("renamed")["stores"]["example.com"]["access_key_id"]
    keys = _client("iam", embedded_store).list_access_keys(UserName="synapse-media-library-renamed")
    assert [one["AccessKeyId"] for one in keys["AccessKeyMetadata"]] == [key]


def test_the_outputs_of_a_release_with_the_secret_among_the_rest_are_read() -> None:
    whole = {
        "server_name": "a",
        "secret_access_key": "s",
        "proof": {"made_for": "f", "lines": [], "secret_sha256": "h"},
    }
    shown, secrets = contract.split(whole)
    assert "s" not in shown.values()
    assert secrets == {"secret_access_key": "s", "secret_sha256": "h"}
    assert contract.of_stack({"stores": {"a": whole}}) == {"a": whole}
    assert contract.of_stack({"stores": {"a": shown}, "store_secrets": {"a": secrets}}) == {"a": whole}
    assert contract.of_stack({}) == {}


def test_a_program_within_a_longer_process_leaves_that_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = {"synapse-media:stores": json.dumps({"example.com": {"method": "filesystem"}})}
    monkeypatch.setattr(pulumi.Config, "get", lambda self, key: stores.get(f"{self.name}:{key}"))
    debug = pulumi.log.debug
    assert from_config()["example.com"].method == "filesystem"
    assert gc.isenabled()
    assert pulumi.log.debug is debug


def test_the_program_of_a_stack_runs_without_searches_for_cycles(tmp_path: Path, embedded_store: Running) -> None:
    program = """
    import gc
    from_config()
    pulumi.export("searches", gc.isenabled())
    """
    stack = library(tmp_path / "project", "cycles", _environment(embedded_store), program)
    stack.write({"example.com": {"method": "filesystem"}})
    stack.up()
    assert stack.engine.outputs("cycles")["searches"] is False
