"""What is read from the environment as a credential, and what of it may be said."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote

import pytest

from synapse_media import catalog, redaction
from synapse_media.cli import main
from synapse_media.errors import StoreError, SynapseMediaError
from synapse_media.plugin import backblaze_b2, digitalocean_spaces, garage, storj
from synapse_media.plugin.existing_key import ExistingKey
from synapse_media.plugin.keyring import MadeKey, _brought
from synapse_media.plugin.resource import Context
from synapse_media.schema.connection import Connection
from synapse_media.schema.resources import ExistingKeyInputs
from synapse_media.settings import ADOPTED_SECRET
from synapse_media.store import credentials
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Credential, admin_credential, call, s3_client
from synapse_media.store.http import JsonClient
from tests.doubles.serving import serving

SECRET = "kZ4/9+secret=0123456789"
QUIET = Context(warn=lambda _: None)
MALFORMED = {
    SECRET + "\n": "has a line break",
    SECRET[:9] + "\r\n" + SECRET[9:]: "has a line break",
    SECRET + "\x07": "has a control character",
    f" {SECRET}": "begins or ends with a blank",
    SECRET[:9] + " " + SECRET[9:]: "has a blank in it",
    f'"{SECRET}"': "has a quotation mark",
    f"{SECRET}'": "has a quotation mark",
    f"“{SECRET}”": "has a quotation mark",
    SECRET + "é": "not ASCII",
}
PARTS = re.compile("|".join(map(re.escape, (SECRET[:9], SECRET[9:]))))


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_forms", {})


def connection(*variables: str, admin_endpoint: str = "") -> Connection:
    return Connection(endpoint="http://127.0.0.1:9", region="r", variables=variables, admin_endpoint=admin_endpoint)


def readers() -> dict[str, Callable[[], object]]:
    """Variable -> what reads it."""
    s3 = [
        partial(admin_credential, connection(*catalog.load(name).admin_variables))
        for name in ("s3_compatible", "amazon_s3", "wasabi")
    ]
    b2 = connection(*catalog.load("backblaze_b2").admin_variables)
    return {
        "S3_ACCESS_KEY_ID": s3[0],
        "S3_SECRET_ACCESS_KEY": s3[0],
        "AWS_SECRET_ACCESS_KEY": s3[1],
        "AWS_SESSION_TOKEN": s3[1],
        "WASABI_SECRET_ACCESS_KEY": s3[2],
        "B2_APPLICATION_KEY_ID": lambda: backblaze_b2.account(b2),
        "B2_APPLICATION_KEY": lambda: backblaze_b2.account(b2),
        "GARAGE_ADMIN_TOKEN": lambda: garage.admin(
            connection("GARAGE_ADMIN_TOKEN", admin_endpoint="http://127.0.0.1:9")
        ),
        "DIGITALOCEAN_TOKEN": lambda: digitalocean_spaces.SpacesApi(Connection()),
        "UPLINK_ACCESS": lambda: storj.parent("bucket", ()),
        ADOPTED_SECRET: lambda: _brought("AKIA", {"AKIA": True}),
    }


@pytest.mark.parametrize("value", MALFORMED, ids=MALFORMED.values())
@pytest.mark.parametrize("variable", readers())
def test_a_malformed_one_is_named_and_not_shown(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in readers():
        monkeypatch.setenv(other, "well-formed-0123456789")
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreError, match=f"^{variable} .*: set it to the value exactly as issued") as refusal:
        readers()[variable]()
    assert MALFORMED[value] in str(refusal.value)
    assert not PARTS.search(str(refusal.value))


def test_every_variable_of_the_catalog_has_such_a_reader() -> None:
    named = {variable for name in catalog.names() for variable in catalog.load(name).admin_variables}
    # The others of a pair are read by the same function.
    alike = {"AWS_ACCESS_KEY_ID", "WASABI_ACCESS_KEY_ID", "SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY"}
    assert named - alike <= readers().keys()


@pytest.mark.parametrize("part", ["access key ID", "secret access key", "session token"])
def test_a_malformed_key_from_anywhere_else_is_refused_before_it_is_sent(part: str) -> None:
    """One of a store.json, or one that a store answered with."""
    values = {"access key ID": "AKIA", "secret access key": SECRET, "session token": "t"}
    with pytest.raises(StoreError, match=f"the {part} has a line break") as refusal:
        Credential(*{**values, part: SECRET + "\n"}.values())
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "variables",
    [("PATH", "HOME"), ("S3_ACCESS_KEY_ID", "UPLINK_ACCESS"), ("AWS_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"), ("PATH",)],
)
def test_no_call_reads_what_is_no_admin_credential(variables: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables:
        monkeypatch.setenv(name, SECRET)
    there = connection(*variables, admin_endpoint="http://127.0.0.1:9")
    for read in (
        lambda: admin_credential(there),
        lambda: backblaze_b2.account(there),
        lambda: garage.admin(there),
        lambda: ExistingKey().make(ExistingKeyInputs(active="a", connection=there), QUIET),
    ):
        with pytest.raises(StoreError, match="not a provider's admin credential; allowed: ") as refusal:
            read()
        assert SECRET not in str(refusal.value)


def test_no_family_reads_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in readers():
        monkeypatch.setenv(name, SECRET)
    with pytest.raises(StoreError, match=r"allowed: GARAGE_ADMIN_TOKEN\."):
        garage.admin(connection("UPLINK_ACCESS", admin_endpoint="http://127.0.0.1:9"))
    with pytest.raises(StoreError, match=r"allowed: B2_APPLICATION_KEY_ID, B2_APPLICATION_KEY\."):
        backblaze_b2.account(connection("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


PAIRS: dict[tuple[str, ...], Callable[[Connection], object]] = {
    catalog.load("s3_compatible").admin_variables: admin_credential,
    catalog.load("amazon_s3").admin_variables: admin_credential,
    catalog.load("wasabi").admin_variables: admin_credential,
    catalog.load("digitalocean_spaces").admin_variables[:2]: admin_credential,
    catalog.load("backblaze_b2").admin_variables: backblaze_b2.account,
}


@pytest.mark.parametrize("variables", PAIRS)
def test_a_pair_that_looks_swapped_is_refused_before_any_call(
    variables: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access key ID is sent in clear, and kept in state in clear."""
    for name in variables[2:]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variables[0], SECRET)
    monkeypatch.setenv(variables[1], "0014aa0123456789")
    with pytest.raises(StoreError, match=f"^{variables[0]} looks like a secret .*were the two swapped") as refusal:
        PAIRS[variables](connection(*variables))
    assert SECRET not in str(refusal.value)


def test_a_pair_chosen_by_hand_is_left_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = catalog.load("s3_compatible").admin_variables
    monkeypatch.setenv(variables[0], "minio-administrator")
    monkeypatch.setenv(variables[1], "minio-secret")
    assert admin_credential(connection(*variables)).secret == "minio-secret"


def test_a_key_that_is_taken_over_and_its_secret_are_not_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an input, and in the state in clear text."""
    secret = "AlphanumericSecretAccessKey0123456789abcd"
    monkeypatch.setenv(ADOPTED_SECRET, "AKIA0123456789")
    with pytest.raises(StoreError, match=f"^adopt_key looks like a secret access key and {ADOPTED_SECRET} like") as one:
        _brought(secret, {"AKIA0123456789": True})
    monkeypatch.delenv(ADOPTED_SECRET)
    with pytest.raises(StoreError, match=r"the user has no key of this ID; it has AKIA\.") as other:
        _brought(secret, {"AKIA": True})
    assert secret not in f"{one.value} {other.value}"


@pytest.mark.parametrize("name", ["amazon_s3", "wasabi", "backblaze_b2"])
def test_the_admin_s_own_key_is_never_handed_out_as_synapse_s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider makes keys, a key from the environment is not one to be kept in state."""
    variables = catalog.load(name).admin_variables
    for variable in variables:
        monkeypatch.setenv(variable, SECRET)
    with pytest.raises(StoreError, match=r"allowed: S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY\."):
        ExistingKey().make(ExistingKeyInputs(active="a", connection=connection(*variables)), QUIET)


# ---- what a library or a server says


@pytest.mark.parametrize(
    "said",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        json.dumps(SECRET),
        SECRET.replace("/", "%2f").replace("+", "%2B").replace("=", "%3D").replace("%2f", "%2F"),
        *(base64.b64encode(f"{before}:{SECRET}".encode()).decode() for before in ("i", "id", "idd", "iddd")),
        *(base64.urlsafe_b64encode(f"{before}:{SECRET}:x".encode()).decode() for before in ("i", "id", "idd")),
    ],
)
def test_an_error_holds_a_secret_in_no_form(said: str) -> None:
    error = SynapseMediaError(f"the server says: {said}!")
    assert said in str(error)
    redaction.remember(SECRET)
    assert redaction.MARK in str(error)
    for form in (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()[4:20]):
        assert form not in str(error)
    assert str(error).startswith("the server says: ")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Invalid header value b'Bearer dop_v1_0123456789abcdef'", "Invalid header value b'Bearer [secret]'"),
        ("Authorization: Basic MDAxOjEyMzQ1Njc4=", "Authorization: Basic [secret]"),
        ("proxy http://me:pass@proxy.example.com:3128", "proxy http://[secret]@proxy.example.com:3128"),
        ("Credential=AKIA/2026, Signature=0123456789abcdef0123", "Credential=AKIA/2026, Signature=[secret]"),
        ("a key ID of Basic authentication at https://s3.example.com:443/a@b", None),
    ],
)
def test_what_stands_where_only_secrets_do_is_left_out(said: str, left: str | None) -> None:
    assert str(SynapseMediaError(said)) == (said if left is None else left)


def test_the_forms_of_a_secret_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the engine names the secrets of its resource again."""
    monkeypatch.setattr(redaction, "_forms", {})
    worked_out: list[str] = []
    forms_of = redaction._forms_of
    monkeypatch.setattr(redaction, "_forms_of", lambda value: [worked_out.append(value), *forms_of(value)][1:])
    for _ in range(3):
        redaction.remember_all({"a": SECRET, "b": [SECRET[::-1]]})
    assert worked_out == [SECRET, SECRET[::-1]]
    assert redaction.redacted(f"{SECRET} {SECRET[::-1]}") == f"{redaction.MARK} {redaction.MARK}"


def test_a_short_word_is_left_in_texts() -> None:
    redaction.remember("secret")
    assert str(SynapseMediaError("the secret access key")) == "the secret access key"


class Quoting(BaseHTTPRequestHandler):
    """Answers every call with what it was sent, at the place where a message is cut."""

    def do_GET(self) -> None:
        said = "x" * 285 + " " + self.headers.get("Authorization", "").partition(" ")[2]
        body = json.dumps({"id": "unauthorized", "message": said}).encode()
        if self.path.startswith("/xml"):
            body = f"<Error><Code>AccessDenied</Code><Message>{'x' * 280} {SECRET}</Message></Error>".encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/xml" if self.path.startswith("/xml") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Standard error is the tests'."""


@pytest.fixture
def quoting() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Quoting) as server, serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_server_that_quotes_a_token_is_not_repeated(quoting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", SECRET)
    token = credentials.read("DIGITALOCEAN_TOKEN")
    with pytest.raises(ApiError, match="unauthorized") as error:
        JsonClient(quoting, "the API", {"Authorization": f"Bearer {token}"}, "endpoint").call("GET", "/v2")
    assert SECRET[:4] not in str(error.value)
    with pytest.raises(ApiError, match="AccessDenied") as error:
        call(s3_client(Connection(f"{quoting}/xml"), Credential("AKIA", SECRET)), "list_buckets")
    assert SECRET[:4] not in str(error.value)


def test_a_secret_in_the_place_of_an_error_s_code_is_not_said() -> None:
    MadeKey("AKIA", SECRET, "")
    error = ApiError(SECRET, 403, "no")
    assert SECRET not in error.code + str(error)


def test_a_header_that_can_not_be_written_is_not_shown() -> None:
    client = JsonClient(
        "http://127.0.0.1:9", "the API", {"Authorization": f"Bearer {SECRET}\n"}, "endpoint", attempts=1
    )
    with pytest.raises(ApiError, match="the request could not be sent") as error:
        client.call("GET", "/")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("value", ["\n", "quoted back"])
def test_doctor_shows_no_token(
    value: str,
    quoting: str,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stores = {"example.com": {"provider": "digitalocean_spaces", "bucket": "media", "region": "fra1"}}
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: synapse-media\nruntime: python\nstackConfigDir: stacks\n")
    config = {"config": {"synapse-media:stores": stores}}
    (tmp_path / "stacks/Pulumi.prod.yaml").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digitalocean_spaces, "API", quoting)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", SECRET + value if value == "\n" else SECRET)
    assert main(["doctor", "--stack", "prod"]) == 1
    printed = "".join(capfd.readouterr())
    assert "wrong: " in printed
    assert ("has a line break in it" if value == "\n" else "unauthorized") in printed
    assert not PARTS.search(printed)
    assert "Traceback" not in printed
