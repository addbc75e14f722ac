"""A store that answers with what no store would: redirects, endless bodies, entities."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from synapse_media.contract import PROOF_OBJECT
from synapse_media.engine import embedded
from synapse_media.methods import Expected, Operation
from synapse_media.plugin import backblaze_b2, digitalocean_spaces, garage, iam
from synapse_media.plugin.s3_bucket import read_policy
from synapse_media.schema.connection import AdminCheck, Connection
from synapse_media.schema.resources import ProofInputs
from synapse_media.store import answers, bounded, http, pace, schemes
from synapse_media.store.answers import ApiError
from synapse_media.store.clients import Client, Credential, call, iam_client, s3_client, server_time
from synapse_media.store.http import JsonClient
from synapse_media.store.objects import create_bucket, is_empty, listed, look
from synapse_media.store.probes import _CHUNK, prove
from tests.doubles.serving import serving

KEY = Credential("AKIAEXAMPLE", "a-secret-that-goes-nowhere-else")
Answer = Callable[[BaseHTTPRequestHandler], None]


class Hostile(ThreadingHTTPServer):
    """A double that answers every call the same way."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def connection(self) -> Connection:
        variables = ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")
        return Connection(endpoint=self.url, iam_endpoint=self.url, variables=variables)

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hangs up on what it refuses."""


class _Handler(BaseHTTPRequestHandler):
    server: Hostile

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.calls.append(f"{self.command} {self.path}")
        self.server.answer(self)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any  # noqa: N815 - the names http.server looks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def hostile(answer: Answer) -> Iterator[Hostile]:
    with Hostile(answer) as server, serving(server):
        yield server


def says(status: int, body: str, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Type": "application/xml", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


def endless(status: int = 200, pause: float = 0) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/xml")
        handler.end_headers()
        block = b"<a>" * (20000 if not pause else 1)
        while True:
            handler.wfile.write(block)
            handler.wfile.flush()
            time.sleep(pause)

    return answer


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_no_credential_to_another_host(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", KEY.secret)
    with hostile(says(200, "<ListAllMyBucketsResult/>")) as other:
        where = {"Location": f"{other.url}/b", "x_amz_bucket_region": "eu-west-1"}
        body = f"<Error><Code>PermanentRedirect</Code><Endpoint>{other.url}</Endpoint><Bucket>b</Bucket></Error>"
        with hostile(says(status, body, **where)) as store:
            s3, iam = s3_client(store.connection(), KEY), iam_client(store.connection())
            for client, operation, arguments in (
                (s3, "list_objects_v2", {"Bucket": "b"}),
                (s3, "put_object", {"Bucket": "b", "Key": "k", "Body": b"x"}),
                (s3, "head_bucket", {"Bucket": "b"}),
                (iam, "get_user", {"UserName": "u"}),
            ):
                with pytest.raises(ApiError):
                    call(client, operation, **arguments)
        assert other.calls == []


@pytest.fixture
def b2_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B2_APPLICATION_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("B2_APPLICATION_KEY", KEY.secret)


def b2(store: Hostile) -> None:
    """B2's first call, with the application key itself."""
    variables = ("B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY")
    backblaze_b2.account(Connection(realm=store.url, variables=variables))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_takes_no_application_key_to_another_host(status: int, b2_key: None) -> None:
    with hostile(says(200, "{}")) as other:
        with hostile(says(status, "{}", Location=f"{other.url}/b2api")) as store:
            target = f"redirects to {other.url.removeprefix('http://')}, which is not followed"
            with pytest.raises(ApiError, match=target) as caught:
                b2(store)
            assert len(store.calls) == 1
        assert other.calls == []
    assert (caught.value.code, caught.value.status) == ("Redirected", status)


@pytest.mark.parametrize("status", [200, 404])
def test_an_endless_answer_of_b2_is_not_read_to_its_end(status: int, b2_key: None) -> None:
    with hostile(endless(status)) as store:
        with pytest.raises(ApiError, match="longer than 8 MiB"):
            b2(store)
        assert len(store.calls) == 1


def test_an_answer_of_b2_that_drips_runs_out_of_time(b2_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    with hostile(endless(pause=0.05)) as store:
        with pytest.raises(ApiError, match="did not end within its time"):
            b2(store)
        assert len(store.calls) == 1


def _head_without_end(line: bytes, pause: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if not line.startswith(b"HTTP/"):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(line)
            handler.wfile.flush()
            time.sleep(pause)

    return answer


HEADS = {
    "a header that drips": _head_without_end(b"a", 0.05),
    "headers that drip": _head_without_end(b"X-A: b\r\n", 0.05),
    "100 Continue that drips": _head_without_end(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    "100 Continue without end": _head_without_end(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0),
    "102 Processing that drips": _head_without_end(b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
    "103 Early Hints without end": _head_without_end(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000, 0),
}
of_each_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
NO_END = r"the answer (did not end within its time|has headers of more than 256 KiB)"


@of_each_head
@pytest.mark.parametrize("operation", ["list_buckets", "put_object"])
def test_a_head_without_end_is_given_up(head: Answer, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1.0)
    arguments = {"Bucket": "b", "Key": "k", "Body": b"x"} if operation == "put_object" else {}
    said, tries = refused(head, operation, **arguments)
    assert re.search(NO_END, said)
    assert tries == 1


@of_each_head
def test_a_head_of_b2_without_end_is_given_up(head: Answer, b2_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1.0)
    with hostile(head) as store:
        with pytest.raises(ApiError, match=NO_END):
            b2(store)
        assert len(store.calls) == 1


@of_each_head
def test_a_head_of_a_json_api_without_end_is_given_up(head: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1.0)
    with hostile(head) as store:
        with pytest.raises(ApiError, match=NO_END):
            JsonClient(store.url, "the API", {}, "endpoint").call("GET", "/")
        assert len(store.calls) == 1


def _after(head: bytes, body: str) -> Answer:
    """An answer after others that are not the final one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        says(200, body)(handler)

    return answer


EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
BUCKETS = "<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>"


def test_the_final_answer_is_the_one_that_counts() -> None:
    with hostile(_after(EARLY + b"HTTP/1.1 199 Else\r\n\r\n", BUCKETS)) as store:
        client = s3_client(store.connection(), KEY)
        for _ in range(2):
            assert [bucket["Name"] for bucket in call(client, "list_buckets")["Buckets"]] == ["b"]
    with hostile(_after(EARLY, '{"a": 1}')) as store:
        assert JsonClient(store.url, "the API", {}, "endpoint").call("GET", "/") == {"a": 1}


def test_a_protocol_that_nobody_asked_for_is_no_answer(b2_key: None) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    why = "the answer switches to another protocol"
    for operation, arguments in (("list_buckets", {}), ("put_object", {"Bucket": "b", "Key": "k", "Body": b"x"})):
        said, tries = refused(_after(head, BUCKETS), operation, **arguments)
        assert why in said
        assert tries == 1
    with hostile(_after(head, "{}")) as store:
        with pytest.raises(ApiError, match=why):
            JsonClient(store.url, "the API", {}, "endpoint").call("GET", "/")
        with pytest.raises(ApiError, match=why):
            b2(store)


def test_the_tries_of_a_call_end_in_sum(b2_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CALL_SECONDS", 0)
    said, tries = refused(says(503, "<Error><Code>SlowDown</Code></Error>"))
    assert "did not end within its time" in said
    assert tries == 0
    with hostile(says(503, "{}")) as store:
        with pytest.raises(ApiError, match="did not end within its time"):
            b2(store)
        with pytest.raises(ApiError, match="did not end within its time"):
            JsonClient(store.url, "the API", {}, "endpoint").call("GET", "/")
        assert store.calls == []


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a call has waited, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    monkeypatch.setattr(pace, "Pace", lambda at_once: OwnPace(at_once, sleep=found.append))
    monkeypatch.setattr(pace, "_paces", {})
    return found


OwnPace = pace.Pace
PUT_OFF = {"Retry_After": "9999"}
IN_SUM = r"asked \d+ times in \d+ s"


def test_what_all_tries_of_a_call_wait_is_bounded_in_sum(waited: list[float]) -> None:
    """What botocore tries again has no time of its own."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        code = "InternalError" if len(store.calls) % 2 == 0 else "SlowDown"
        says(500 if code == "InternalError" else 503, f"<Error><Code>{code}</Code></Error>", **PUT_OFF)(handler)

    with hostile(answer) as store:
        with pytest.raises(ApiError, match=IN_SUM):
            call(s3_client(store.connection(), KEY), "list_buckets")
        assert len(store.calls) > 2
    assert 60 < sum(waited) <= pace.SECONDS + 10


def test_what_all_tries_of_a_json_call_wait_is_bounded_in_sum(waited: list[float]) -> None:
    """Its own two kinds of pauses are one sum."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        says(503 if len(store.calls) < 5 else 429, '{"code": "x"}', **PUT_OFF)(handler)

    with hostile(answer) as store:
        with pytest.raises(ApiError, match=IN_SUM):
            JsonClient(store.url, "the API", {}, "endpoint", pause=waited.append).call("GET", "/")
        assert len(store.calls) > 5
    assert 60 < sum(waited) <= pace.SECONDS


def test_what_all_tries_of_a_call_to_b2_wait_is_bounded_in_sum(waited: list[float], b2_key: None) -> None:
    with hostile(says(503, '{"code": "x", "message": "y", "status": 503}', **PUT_OFF)) as store:
        with pytest.raises(ApiError, match=IN_SUM):
            b2(store)
        assert len(store.calls) == backblaze_b2.ATTEMPTS
    assert 60 < sum(waited) <= pace.SECONDS


def _page(key: str, marker: str) -> str:
    version = f"<Version><Key>{key}</Key><VersionId>1</VersionId></Version>"
    more = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{marker}</NextKeyMarker>"
    return f"<ListVersionsResult>{version}{more}</ListVersionsResult>"


def test_a_listing_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PAGES", 3)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        says(200, _page(PROOF_OBJECT, str(len(store.calls))))(handler)

    with hostile(answer) as store:
        with pytest.raises(ApiError, match="one of more than 3 pages of a listing"):
            is_empty(s3_client(store.connection(), KEY), "b")
        assert len(store.calls) == 4
    with hostile(says(200, _page(PROOF_OBJECT, "a"))) as store:
        with pytest.raises(ApiError, match="begins where a page before it did"):
            is_empty(s3_client(store.connection(), KEY), "b")
        assert len(store.calls) == 2


def test_a_listing_that_goes_round_in_circles_is_given_up() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        following = f"<NextContinuationToken>{'abc'[len(store.calls) % 3]}</NextContinuationToken>"
        inside = f"<IsTruncated>true</IsTruncated>{following}<Contents><Key>a</Key><Size>1</Size>{DATE}</Contents>"
        says(200, f"<ListBucketResult>{inside}</ListBucketResult>")(handler)

    with hostile(answer) as store:
        with pytest.raises(ApiError, match="begins where a page before it did"):
            list(listed(s3_client(store.connection(), KEY), "b", ""))
        assert len(store.calls) == 4


DATE = "<LastModified>2026-01-31T23:59:59.000Z</LastModified>"

TORN = {
    "entries removed": ("<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>", "has 2 entries, and has 0"),
    "one removed": (
        "<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>",
        "has 2 entries, and has 1",
    ),
    "no place to go on": (
        "<KeyCount>1</KeyCount><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents>",
        "NextContinuationToken",
    ),
    "an empty place": (
        "<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken/>",
        "NextContinuationToken",
    ),
    "nothing in it": ("", "IsTruncated"),
    "not told whether more follows": ("<KeyCount>1</KeyCount><Contents><Key>a</Key></Contents>", "IsTruncated"),
    "more beside its end": (
        "<IsTruncated>false</IsTruncated><NextContinuationToken>a</NextContinuationToken>",
        "the last one, and where the next one begins",
    ),
}


@pytest.mark.parametrize(("inside", "said"), TORN.values(), ids=TORN)
@pytest.mark.parametrize("ask", [look, is_empty, lambda s3, bucket: list(listed(s3, bucket, ""))])
def test_a_page_of_a_listing_that_lacks_what_it_says_is_no_empty_bucket(
    ask: Callable[[Client, str], object], inside: str, said: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        # A store without versions is asked for its objects.
        lacks = says(501, "<Error><Code>NotImplemented</Code></Error>")
        (lacks if "versions" in handler.path else says(200, f"<ListBucketResult>{inside}</ListBucketResult>"))(handler)

    with hostile(answer) as store, pytest.raises(ApiError, match=said) as caught:
        ask(s3_client(store.connection(), KEY), "b")
    assert caught.value.code == answers.NO_ANSWER


def test_a_page_with_keys_that_were_not_asked_for_is_no_answer() -> None:
    inside = "<IsTruncated>false</IsTruncated><Contents><Key>local_content/a</Key></Contents>"
    with hostile(says(200, f"<ListBucketResult>{inside}</ListBucketResult>")) as store:
        s3 = s3_client(store.connection(), KEY)
        with pytest.raises(ApiError, match="'local_content/a', which does not begin with 'media/'"):
            list(listed(s3, "b", "media/"))


def test_a_page_of_versions_that_says_nothing_is_no_empty_bucket() -> None:
    empty = says(200, "<ListVersionsResult></ListVersionsResult>")
    with hostile(empty) as store, pytest.raises(ApiError, match="IsTruncated"):
        is_empty(s3_client(store.connection(), KEY), "b")


@pytest.mark.parametrize(
    "inside",
    [
        "<IsTruncated>false</IsTruncated>",
        "<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated><NextContinuationToken/>",
        "<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>.x</Key></Contents>"
        "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>",
    ],
)
def test_a_page_of_a_listing_that_is_the_whole_of_it(inside: str) -> None:
    with hostile(says(200, f"<ListBucketResult>{inside}</ListBucketResult>")) as store:
        look(s3_client(store.connection(), KEY), "b")


def test_a_place_that_redirects_to_https_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said, tries = refused(says(301, "", Location="https://s3.example.com/"))
    assert "It redirects to https://s3.example.com, which is not followed: mend the endpoint" in said
    assert tries == 1


def test_what_head_can_t_say_is_asked_again() -> None:
    """A region that is not the store's is named by the body of the answer alone."""
    wrong = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-west-1</Region></Error>"

    def answer(handler: BaseHTTPRequestHandler) -> None:
        says(400, "" if handler.command == "HEAD" else wrong)(handler)

    with hostile(answer) as store:
        [line] = prove(store.connection(), KEY, "b", "", {Operation.HEAD: Expected.ALLOWED})
    assert line.outcome == "failed (AuthorizationHeaderMalformed)"
    assert "set region: eu-west-1" in line.detail


def _garage_region(url: str) -> None:
    garage.check_region(Connection(endpoint=url, region="garage"))


def _garage(url: str) -> None:
    garage.check_admin(AdminCheck(Connection(admin_endpoint=url, variables=("GARAGE_ADMIN_TOKEN",)), "b", "", "", ""))


def _spaces(url: str) -> None:
    digitalocean_spaces.SpacesApi(Connection(api_endpoint=url)).listed()


def _b2(url: str) -> None:
    backblaze_b2.account(Connection(realm=url, variables=("B2_APPLICATION_KEY_ID", "B2_APPLICATION_KEY")))


def _iam(url: str) -> None:
    variables = ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")
    call(iam_client(Connection(iam_endpoint=url, variables=variables)), "get_user", UserName="u")


def _s3(url: str) -> None:
    call(s3_client(Connection(endpoint=url), KEY), "list_buckets")


CLIENTS = {
    "endpoint": _s3,
    "iam_endpoint": _iam,
    "realm": _b2,
    "admin_endpoint": _garage,
    "api_endpoint": _spaces,
    "endpoint of Garage": _garage_region,
}
of_each_client = pytest.mark.parametrize(("setting", "ask"), CLIENTS.items(), ids=CLIENTS)


@pytest.fixture
def any_credential(monkeypatch: pytest.MonkeyPatch, b2_key: None, waited: list[float]) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", KEY.secret)
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", KEY.secret)
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", KEY.secret)
    monkeypatch.setattr(http, "PATIENCE", 0.0)
    schemes._speaks_tls.cache_clear()
    schemes._greeting.cache_clear()


class BothKinds(Hostile):
    """Speaks TLS, and answers who does not as nginx and Go do, with a 400; or not at all."""

    def __init__(self, certificate: Path, page: str) -> None:
        super().__init__(says(400, page, Content_Type="text/html"))
        self.page = page
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.page and request.recv(1, socket.MSG_PEEK) != b"\x16":
            super().finish_request(request, client_address)
            return
        with suppress(OSError):
            self.context.wrap_socket(request, server_side=True).close()


@of_each_client
def test_https_where_there_is_http_is_explained(setting: str, ask: Any, any_credential: None) -> None:
    with hostile(says(200, "")) as store:
        said = rf"speaks no TLS: is it http in place of https\?.*set {setting.partition(' ')[0]}: {store.url},"
        with pytest.raises(ApiError, match=said):
            ask(store.url.replace("http:", "https:"))
        assert store.calls == []


class ClosesAtTls(Hostile):
    """Answers HTTP, and closes the connection without a word where TLS is spoken, as Node.js does."""

    def __init__(self, how: str) -> None:
        super().__init__(says(200, ""))
        self.how = how

    def finish_request(self, request: Any, client_address: Any) -> None:
        if request.recv(1, socket.MSG_PEEK) != b"\x16":
            super().finish_request(request, client_address)
        elif self.how == "reset":  # which closing does where something is left unread
            request.close()
        else:
            request.recv(65536)


@pytest.mark.parametrize("how", ["reset", "closed"])
@of_each_client
def test_https_where_http_is_spoken_and_tls_closes_the_connection(
    setting: str, ask: Any, how: str, any_credential: None
) -> None:
    with ClosesAtTls(how) as store, serving(store):
        said = rf"speaks no TLS: is it http in place of https\?.*set {setting.partition(' ')[0]}: {store.url},"
        with pytest.raises(ApiError, match=said):
            ask(store.url.replace("http:", "https:"))


@pytest.mark.parametrize("page", ["", "<html>The plain HTTP request was sent to HTTPS port</html>"])
@of_each_client
def test_http_where_there_is_https_is_explained(
    setting: str, ask: Any, page: str, any_credential: None, tmp_path: Path
) -> None:
    embedded._make_certificate(tmp_path)
    with BothKinds(tmp_path, page) as store, serving(store):
        https = store.url.replace("http:", "https:")
        said = rf"What answers there speaks TLS: set {setting.partition(' ')[0]}: {https}$"
        with pytest.raises(ApiError, match=said):
            ask(store.url)


@pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS)
def test_a_certificate_of_an_authority_of_ones_own_is_explained(ask: Any, any_credential: None, tmp_path: Path) -> None:
    embedded._make_certificate(tmp_path)
    said = "name the authority's certificate with ca_file"
    with BothKinds(tmp_path, "") as store, serving(store), pytest.raises(ApiError, match=said):
        ask(store.url.replace("http:", "https:"))


def _certificate(folder: Path, name: str, begins: timedelta) -> Path:
    """A certificate that signs itself, valid for a day, and its key: cert.pem, key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) + begins
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cert.pem").write_bytes(made.public_bytes(encoding))
    return folder / "cert.pem"


@pytest.mark.parametrize(
    ("name", "begins", "said"),
    [
        ("other.example.com", timedelta(hours=-1), r"Give endpoint a name that is in the server's certificate$"),
        ("localhost", timedelta(days=-9), r"Renew the server's certificate, or set the clock of this machine$"),
        ("localhost", timedelta(days=9), r"Renew the server's certificate, or set the clock of this machine$"),
    ],
    ids=["another name", "expired", "not yet valid"],
)
@pytest.mark.usefixtures("any_credential")
@pytest.mark.parametrize("api", ["S3", "JSON"])
def test_what_is_wrong_with_a_certificate_is_explained(
    api: str, name: str, begins: timedelta, said: str, tmp_path: Path
) -> None:
    trusted = str(_certificate(tmp_path, name, begins))
    with BothKinds(tmp_path, "") as store, serving(store):
        url = store.url.replace("http:", "https:").replace("127.0.0.1", "localhost")
        clients = {
            "S3": lambda: call(s3_client(Connection(endpoint=url, ca_file=trusted), KEY), "list_buckets"),
            "JSON": lambda: JsonClient(url, "the API", {}, "endpoint", ca_file=trusted).call("GET", "/"),
        }
        with pytest.raises(ApiError, match=said):
            clients[api]()


@of_each_client
def test_a_server_that_wants_a_certificate_of_the_client_is_explained(
    setting: str, ask: Any, any_credential: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = _certificate(tmp_path, "localhost", timedelta(hours=-1))
    for variable in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(trusted))
    http.trusting.cache_clear()
    with BothKinds(tmp_path, "") as store, serving(store):
        store.context.load_verify_locations(trusted)
        store.context.verify_mode = ssl.CERT_REQUIRED
        # Later versions refuse after the handshake, and a client that writes meanwhile may not see why.
        store.context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ApiError, match="it wants a certificate of the client, which is not supported"):
            ask(store.url.replace("http:", "https:").replace("127.0.0.1", "localhost"))
    http.trusting.cache_clear()


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example.com ESMTP\r\n"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@of_each_client
def test_a_server_that_speaks_no_http_is_explained(
    setting: str, ask: Any, scheme: str, greeting: bytes, any_credential: None
) -> None:
    class Greets(Hostile):
        def finish_request(self, request: Any, client_address: Any) -> None:
            request.sendall(greeting)
            request.recv(65536)

    said = f"(no|nor) HTTP: check the port in {setting.partition(' ')[0]}"
    with Greets(says(200, "")) as store, serving(store), pytest.raises(ApiError, match=said):
        ask(store.url.replace("http:", f"{scheme}:"))


@pytest.mark.parametrize(
    ("alert", "said"),
    [
        (40, "it does not have the name in {}, or it wants a certificate of the client"),
        (70, "The server has no version of TLS that this machine takes"),
        (112, "The server does not have this name: check {}"),
    ],
)
@of_each_client
def test_an_alert_of_a_server_is_explained(setting: str, ask: Any, alert: int, said: str, any_credential: None) -> None:
    class Alerts(Hostile):
        def finish_request(self, request: Any, client_address: Any) -> None:
            request.recv(65536)
            request.sendall(bytes((21, 3, 3, 0, 2, 2, alert)))  # a record of TLS: fatal

    wanted = said.format(setting.partition(" ")[0])
    with Alerts(says(200, "")) as store, serving(store), pytest.raises(ApiError, match=wanted):
        ask(store.url.replace("http:", "https:"))


@pytest.mark.parametrize("document", ["junk", "[]", "[" * 20_000, '{"Statement":' + "[" * 20_000])
def test_a_bucket_policy_that_is_none_is_no_answer(document: str) -> None:
    with hostile(says(200, document, Content_Type="application/json")) as store:
        with pytest.raises(ApiError, match="the response is not a policy"):
            read_policy(s3_client(store.connection(), KEY), "b")
        [line] = prove(store.connection(), KEY, "b", "", {Operation.PUT_BUCKET_POLICY: Expected.REFUSED})
    assert line.outcome != Expected.REFUSED.value


@of_each_client
def test_a_connection_that_breaks_off_is_not_taken_for_tls(setting: str, ask: Any, any_credential: None) -> None:
    with hostile(lambda handler: handler.connection.close()) as store, pytest.raises(ApiError) as caught:
        ask(store.url)
    assert "TLS" not in str(caught.value)


def test_a_request_that_is_too_long_for_a_proxy_is_explained() -> None:
    for kind in ("application/xml", "text/html"):
        page = says(413, "<html>413 Request Entity Too Large</html>", Content_Type=kind)
        said, _ = refused(page, "put_object", Bucket="b", Key="k", Body=b"x")
        assert "client_max_body_size" in said


@pytest.mark.parametrize("named", ["header", "body"])
def test_the_region_of_a_bucket_that_is_elsewhere_is_passed_on(named: str) -> None:
    inside = "<Region>moon-1</Region>" if named == "body" else ""
    text = f"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message>{inside}</Error>"
    more = {"x_amz_bucket_region": "moon-1"} if named == "header" else {}
    said, _ = refused(says(301, text, **more), "list_objects_v2", Bucket="b")
    assert "set region: moon-1" in said


def test_a_region_that_is_no_place_is_left_out() -> None:
    """At Ceph the place of a bucket is a zone group, and the region that is signed for may have another name."""
    bodies = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        bodies.append(length)
        code = "<Error><Code>InvalidLocationConstraint</Code></Error>"
        says(400 if length else 200, code if length else "")(handler)

    with hostile(answer) as store:
        create_bucket(s3_client(replace(store.connection(), region="eu"), KEY), "b", "eu")
    assert bodies[0] > 0
    assert bodies[1:] == [0]


def refused(answer: Answer, operation: str = "list_buckets", **arguments: Any) -> tuple[str, int]:
    """What is said, and in how many tries."""
    with hostile(answer) as store:
        with pytest.raises(ApiError) as caught:
            call(s3_client(store.connection(), KEY), operation, **arguments)
        return str(caught.value), len(store.calls)


@pytest.mark.parametrize("status", [200, 404])
def test_an_endless_answer_is_not_read_to_its_end(status: int) -> None:
    said, tries = refused(
        endless(status),
        "get_object" if status == 404 else "list_buckets",
        **({"Bucket": "b", "Key": "k"} if status == 404 else {}),
    )
    assert "longer than 8 MiB" in said
    assert tries == 1


def test_an_answer_that_drips_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    said, tries = refused(endless(pause=0.05))
    assert "did not end within its time" in said
    assert tries == 1


def test_an_endless_object_is_no_more_than_what_was_written() -> None:
    with hostile(endless()) as store:
        lines = prove(store.connection(), KEY, "b", "", {Operation.GET: Expected.ALLOWED})
    assert lines[0].outcome == "failed (WrongContent)"
    assert f"({_CHUNK} of 1024 bytes)" in lines[0].detail


def test_entities_are_not_expanded() -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a0 "ha">'
    laughs += "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    body = (
        f"<?xml version='1.0'?>{laughs}]><ListAllMyBucketsResult><Owner><ID>&a9;</ID></Owner></ListAllMyBucketsResult>"
    )
    assert "declares XML entities" in refused(says(200, body))[0]
    outside = (
        "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/hostname'>]>"
        "<Error><Code>AccessDenied</Code><Message>&f;</Message></Error>"
    )
    assert "declares XML entities" in refused(says(403, outside))[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("status", [200, 404])
def test_attributes_that_are_not_there_are_not_made(status: int, encoding: str) -> None:
    """Each of many short elements would have thousands: a document of a megabyte took gigabytes."""
    attributes = " ".join(f'x{number} CDATA "y"' for number in range(1000))
    body = (
        f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE Error [<!ATTLIST a {attributes}>]>"
        f"<Error><Code>NoSuchBucket</Code>{'<a/>' * 10_000}</Error>"
    ).encode(encoding)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    assert "declares XML entities or attributes" in refused(answer)[0]


def test_an_answer_of_a_store_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "<ListAllMyBucketsResult><Buckets><Bucket><Name>&lt;!ENTITY</Name></Bucket></Buckets></ListAllMyBucketsResult>"
    )
    with hostile(says(200, body, x_amz_request_id="R1")) as store:
        answer = call(s3_client(store.connection(), KEY), "list_buckets")
    assert [bucket["Name"] for bucket in answer["Buckets"]] == ["<!ENTITY"]


LISTED = (
    "<ListUsersResponse><ListUsersResult><Users><member><UserName>u</UserName><CreateDate>{}</CreateDate></member>"
    "</Users></ListUsersResult></ListUsersResponse>"
)


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z"])
def test_a_date_that_no_clock_shows_is_no_answer(date: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", KEY.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", KEY.secret)
    listed = hostile(says(200, LISTED.format(date)))
    with listed as store, pytest.raises(ApiError, match="a date that no clock shows"):
        call(iam_client(store.connection()), "list_users")


@pytest.mark.parametrize("date", ["9" * 17, "-" + "9" * 17, "9" * 400, "2026-02-30T00:00:00Z", "", "soon"])
def test_a_date_that_is_none_is_no_answer(date: str) -> None:
    inside = f"<IsTruncated>false</IsTruncated><Contents>{DATE}</Contents>".replace("2026-01-31T23:59:59.000Z", date)
    page = hostile(says(200, f"<ListBucketResult>{inside}</ListBucketResult>"))
    with page as store, pytest.raises(ApiError, match="list_objects_v2"):
        list(listed(s3_client(store.connection(), KEY), "b", ""))


@pytest.mark.parametrize("date", ["soon", "Thu, 99 Nov 2026 20:01:47 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_header_date_that_is_none_is_no_time(date: str) -> None:
    with pytest.raises(ApiError, match="a date that no clock shows"):
        server_time({"ResponseMetadata": {"HTTPHeaders": {"date": date}}})


def test_a_server_without_a_date_is_taken() -> None:
    """Go's zero time."""
    assert answers.Answer("a call", {"CreateDate": datetime(1, 1, 1, tzinfo=UTC)})["CreateDate"].year == 1


@pytest.mark.parametrize("at", ["20261399T999999", "99991231T235959", "00000000T000000"])
def test_an_entry_of_the_journal_without_a_time_is_none(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may edit the user's policies writes what he likes; an entry that can't be read is removed."""
    document = {"Statement": [{"Sid": f"At{at}ZNonce01234567Digests"}]}
    monkeypatch.setattr(iam, "call", lambda *_, **__: {"PolicyDocument": document})
    assert iam._read_entry(cast("Client", None), "u", "s3store-making-a") is None


def test_a_time_of_an_upload_that_no_clock_shows_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"fileName": PROOF_OBJECT, "fileId": "1", "uploadTimestamp": 10**30}
    bucket = SimpleNamespace(id_="b", name="media")
    session = SimpleNamespace(list_file_versions=lambda *_, **__: {"files": [file]})
    api = SimpleNamespace(list_buckets=lambda **_: [bucket], session=session)
    monkeypatch.setattr(backblaze_b2, "account", lambda _: api)
    inputs = SimpleNamespace(connection=Connection(), bucket="media", prefix="")
    with pytest.raises(ApiError, match="the response is not that of B2's API"):
        backblaze_b2.B2Administrator().clear(cast("ProofInputs", inputs), PROOF_OBJECT)
