"""What an answer has to be to be one of a store: looked at in one place, before anything is concluded from it.

botocore takes whatever parses for an answer, and leaves out what it doesn't find. Here an answer of the S3 or IAM API
has the document of its operation (`require_document`), each element of it is of the type that the API's model gives it
(`strict_parsers`), it is about what was asked (`require_asked`), and what is read from it is there (`Answer`; `part`
for JSON). All that comes out otherwise is an ApiError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from xml.etree import ElementTree as ET

from synapse_media.errors import StoreError
from synapse_media.redaction import plain, redacted

DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess", "Unauthorized"})
ABSENT: Final = frozenset({"NoSuchBucket", "NoSuchEntity", "NoSuchKey"})
"""S3's and IAM's own codes, which only their own error document holds: a bare 404 may be anybody's in between."""
LACKING: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "XNotImplemented", "InvalidAction"})
BAD_KEY: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthFailure"})
NO_ANSWER: Final = "Unparsable"
"""The code of what is no answer of a store."""
_NOBODYS: Final = frozenset({"", NO_ANSWER, "NotGarage", "NotJson", "NotS3", "Redirected", "RefusedAnswer"})


class ApiError(StoreError):
    """A call the store answered with an error, or did not answer."""

    def __init__(self, code: str, status: int, message: str) -> None:
        # Other sentences follow it in many messages, each after a full stop of their own.
        super().__init__(message.removesuffix("."))
        self.code = plain(redacted(code))
        self.status = status

    @property
    def is_anybodys(self) -> bool:
        """Whether no error of the store came with it: a router or gateway in between may have given it."""
        return self.code == str(self.status) or self.code in _NOBODYS

    @property
    def denied(self) -> bool:
        if self.is_anybodys:
            return False
        return self.code in DENIED or (self.status == 403 and self.code not in BAD_KEY | {"RequestTimeTooSkewed"})

    @property
    def absent(self) -> bool:
        return self.code in ABSENT

    @property
    def lacking(self) -> bool:
        return self.code in LACKING or self.status == 501

    @property
    def bad_key(self) -> bool:
        return self.code in BAD_KEY


# ---- S3 and IAM

_ROOTS: Final = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CopyObject": "CopyObjectResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketEncryption": "ServerSideEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLocation": "LocationConstraint",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetPublicAccessBlock": "PublicAccessBlockConfiguration",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}
"""S3's operations that answer with a document, and its root: https://docs.aws.amazon.com/AmazonS3/latest/API/"""
_BY_MODEL: Final = ("Output", "Result", "Response")
"""Servers made from Amazon's API model (s3s) name some roots by their operation."""
_WITHOUT_DOCUMENT: Final = frozenset({"DeleteBucket", "DeleteBucketPolicy", "DeleteObject", "AbortMultipartUpload"})
"""S3's operations that delete, and answer with a 204."""
_ROOT: Final = re.compile(
    rb"\A\s*(?:\xef\xbb\xbf)?(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:[\w.-]+:)?([\w.-]+)", re.DOTALL
)


def require_document(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Refuse a success that is none of its operation's. An event of botocore, before it parses.

    Raises botocore's ResponseParserError.
    """
    from botocore.parsers import ResponseParserError

    if response_dict["status_code"] >= 300:
        response_dict["body"] = _error_in(response_dict["body"], operation_model.service_model.service_name)
        return
    name, body = operation_model.name, response_dict["body"]
    status = f"HTTP {response_dict['status_code']}"
    if name in _WITHOUT_DOCUMENT:
        # Of a 200 that says nothing nobody knows whose it is.
        if response_dict["status_code"] != 204 and not _is_of_s3(response_dict["headers"]):
            raise ResponseParserError(f"{status} in place of 204")
        if body.strip() and _root_in(body) not in {name + end for end in _BY_MODEL}:
            raise ResponseParserError(f"{status}, and the body is {_named(_root_in(body))}, where there is none")
        return
    wanted = _root_of(operation_model)
    if wanted is None:
        # The body of an object is yet to be read.
        if not _is_of_bytes(operation_model) and body.strip() and _parsed(body) is None:
            raise ResponseParserError(f"{status}, and the body is no XML")
        return
    if not body.strip():
        raise ResponseParserError(f"{status}, and the body is empty")
    root = _root_in(body)
    # An error with a 200, as some operations of S3 have it, botocore knows.
    errors = ("Error",) if operation_model.service_model.service_name == "s3" else ()
    if root not in (*errors, wanted, *(name + end for end in _BY_MODEL)):
        raise ResponseParserError(f"{status}, and the body is {_named(root)}, not <{wanted}>")
    if _parsed(body) is None:
        raise ResponseParserError(f"{status}, and the body is cut off or broken")


def _root_in(body: bytes) -> str:
    match = _ROOT.match(body)
    return match[1].decode() if match else ""


def _named(root: str) -> str:
    if root.lower() in ("html", "doctype"):
        return "a web page"
    return f"<{root[:_LONGEST]}>" if root else "no XML"


def _root_of(operation_model: Any) -> str | None:
    name: str = operation_model.name
    return name + "Response" if operation_model.service_model.service_name == "iam" else _ROOTS.get(name)


def _parsed(body: bytes) -> ET.Element | None:
    """The root of a document; None where it is none."""
    parser = ET.XMLParser()  # noqa: S314 - an answer that declares entities was refused before
    try:
        parser.feed(body)
        root: ET.Element = parser.close()
    except ET.ParseError:
        return None
    return root


def _error_in(body: bytes, service: str) -> bytes:
    """The error document of an answer, in the form in which botocore looks for a code; without any, one without a code.

    botocore would take the code of any other document as well.
    """
    root = _parsed(body)
    name = _name_of(root) if root is not None and _is_error(root) else ""
    if service != "iam":
        return body if name else b""
    if name == "ErrorResponse":
        return body
    # Some servers have S3's form for both.
    inner = ET.tostring(root) if root is not None and name else b"<Error><Code/></Error>"
    return b"<ErrorResponse>" + inner + b"</ErrorResponse>"


def _is_error(root: ET.Element) -> bool:
    """Whether it is an error document; with two codes, of which neither could be believed, it is none."""
    codes = {"Error": "{*}Code", "ErrorResponse": "{*}Error/{*}Code"}.get(_name_of(root))
    found = root.findall(codes) if codes else []
    return codes is not None and len(found) < 2 and not any(map(len, found))


def _name_of(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def strict_parsers(timestamp_parser: Callable[[Any], datetime]) -> Any:
    """What makes botocore's parsers of answers: those of S3 and IAM, which take no element of another type than the
    service's model gives it. botocore's own take two texts for a list of elements, two structures for the first one,
    and whatever is not `true` for False.
    """
    from botocore.parsers import PROTOCOL_PARSERS, ResponseParserError, ResponseParserFactory

    def strict(parser: Any) -> Any:
        class Strict(parser):  # type: ignore[misc]
            def _parse_shape(self, shape: Any, node: Any) -> Any:
                # Most values of a page of a thousand objects are texts: what the check takes is saved here.
                if shape.type_name == "string" and isinstance(node, ET.Element) and not len(node):
                    return node.text or ""
                fault = _fault_of(shape, node)
                if fault:
                    raise ResponseParserError(fault)
                return super()._parse_shape(shape, node)

            def _handle_boolean(self, shape: Any, node: Any) -> bool:
                return _truth(node) == "true"

        return Strict

    strict_ones = {protocol: strict(PROTOCOL_PARSERS[protocol]) for protocol in ("query", "rest-xml")}

    class Factory(ResponseParserFactory):  # type: ignore[misc]
        def create_parser(self, protocol_name: str) -> Any:
            return strict_ones[protocol_name](timestamp_parser=timestamp_parser)

    return Factory()


_OF_ELEMENTS: Final = frozenset({"structure", "list", "map"})
_OF_TEXT: Final = "GetBucketLocationOutput"
"""The one document that is a text itself, which the model can't say:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html"""
_WHOLE: Final = frozenset({"integer", "long"})
_WHOLE_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")


def _fault_of(shape: Any, node: Any) -> str:
    """Why what stands for a value is not of its type; "" where it is.

    Args:
        node: an element, a list of those of one name, or the text of a header.
    """
    kind = shape.type_name
    if isinstance(node, list):
        several = kind == "list" and shape.serialization.get("flattened")
        return "" if several else f"{_shown(node[0])} is there more than once"
    if kind == "boolean" and _truth(node) not in ("true", "false"):
        return f"{_shown(node)} is neither true nor false"
    if isinstance(node, str):
        return ""
    text = node.text
    if kind in _OF_ELEMENTS and shape.name != _OF_TEXT:
        # A list without an element around it is a value of its own.
        flat = kind == "list" and shape.serialization.get("flattened")
        return f"{_shown(node)} has a text, and no elements" if text and not (flat or text.isspace()) else ""
    if len(node) and shape.name != _OF_TEXT:
        return f"{_shown(node)} has elements, and no text"
    return f"{_shown(node)} is no whole number" if kind in _WHOLE and not _WHOLE_NUMBER.fullmatch(text or "") else ""


def _truth(node: Any) -> str:
    return str((node if isinstance(node, str) else node.text) or "").strip().lower()


def _shown(node: Any) -> str:
    return "a header" if isinstance(node, str) else f"<{_name_of(node)[:_LONGEST]}>"


_LONGEST: Final = 40
"""Characters of a server's that are shown where a short name is expected."""


_NAMES: Final = {"Bucket": ("Bucket", "Name"), "UserName": ("UserName",), "PolicyName": ("PolicyName",)}
"""{what a call is given: how its answer names it}."""
_WITHOUT_CASE: Final = frozenset({"UserName", "PolicyName"})
"""Names that IAM does not tell by their case: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""


def require_asked(what: str, arguments: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Raise ApiError for an answer that names another bucket, user or policy than was asked for: it tells nothing.

    Many servers leave the name out or empty, which is no contradiction.

    Args:
        what: the call, as messages begin.
        arguments: those of the call.
    """
    for argument, names in _NAMES.items():
        if argument not in arguments:
            continue
        wanted = str(arguments[argument])
        for part in _named_in(answer):
            for name in names:
                found = part.get(name) or wanted
                same = found.casefold() == wanted.casefold() if argument in _WITHOUT_CASE else found == wanted
                if not same:
                    raise ApiError(
                        NO_ANSWER,
                        0,
                        f"{what}: the answer names the {name} {found[:200]!r}, and {wanted!r} was asked for: check the "
                        "endpoint and any proxy in front of it.",
                    )


def _named_in(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of an answer that may name what it is about: of IAM each structure in it, of S3 the answer itself."""
    yield answer
    for name in ("User", "AccessKey"):
        if name in answer:
            yield answer[name]
    yield from answer.get("AccessKeyMetadata", ())


def _is_of_bytes(operation_model: Any) -> bool:
    """Whether an answer is no document: an object, or a policy."""
    shape = operation_model.output_shape
    return shape is None or shape.serialization.get("payload") is not None


def _is_of_s3(headers: Mapping[str, Any]) -> bool:
    return any(name.lower().startswith("x-amz") for name in headers)


_ENTRIES: Final = {
    "list_objects_v2": ("Contents", "CommonPrefixes"),
    "list_object_versions": ("Versions", "DeleteMarkers", "CommonPrefixes"),
}
"""The listings from which it is concluded that nothing is there, and what their pages are made of."""


def require_whole_page(what: str, operation: str, page: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ApiError for a page of a listing that lacks what it says it has, or has what was not asked for: it tells
    nothing of what is there, and it is no empty listing.

    `KeyCount` is the number of entries of the page, which the page itself says of ListObjectsV2 alone:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html

    Args:
        what: the call, as messages begin.
        operation: as boto3 names it.
        prefix: how every key has to begin.
    """
    if operation not in _ENTRIES:
        return
    entries = [entry for name in _ENTRIES[operation] for entry in page.get(name) or ()]
    found = len(entries)
    other = next((key for key in map(_key_of, entries) if not key.startswith(prefix)), None)
    said = page.get("KeyCount")
    more, token = page.get("IsTruncated"), page.get("NextContinuationToken")
    why = ""
    if said is not None and said > found:
        why = f"says that it has {said} entries, and has {found}"
    elif other is not None:
        why = f"has the key {other[:200]!r}, which does not begin with {prefix!r}, as was asked"
    elif more is None:
        why = "does not say whether it is the last one (IsTruncated)"
    elif operation == "list_objects_v2" and more and not token:
        why = "says that more follows, and not where (NextContinuationToken)"
    elif token and not more:
        why = "says that it is the last one, and where the next one begins (NextContinuationToken)"
    if why:
        raise ApiError(NO_ANSWER, 0, f"{what}: the page {why}: check the endpoint and any proxy in front of it.")


def _key_of(entry: Mapping[str, Any]) -> str:
    """Of an object, or of a folder."""
    return str(entry.get("Key") or entry.get("Prefix") or "")


class Answer(dict[str, Any]):
    """An answer of the S3 or IAM API, and each part of it: what it has to hold and doesn't is said.

    Args:
        what: the call, as messages begin.
    """

    def __init__(self, what: str, found: Mapping[str, Any]) -> None:
        super().__init__({name: _wrapped(what, value) for name, value in found.items()})
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise ApiError(NO_ANSWER, 0, f"{self._what}: the answer of the store has no {name}")


def _wrapped(what: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return Answer(what, value)
    if isinstance(value, datetime):
        return moment(what, value)
    return [_wrapped(what, item) for item in value] if isinstance(value, list) else value


def moment(what: str, value: datetime) -> datetime:
    """A date of an answer, in UTC. Raises ApiError for one with which nothing can be computed.

    The year 1 is taken: servers written in Go have it where they know no date.

    Args:
        what: the call, as messages begin.
    """
    with suppress(OverflowError, ValueError, OSError):
        found = value.astimezone(UTC)
        if found.year < _LAST_YEAR:
            return found
    raise ApiError(NO_ANSWER, 0, f"{what}: the answer has a date that no clock shows")


_LAST_YEAR: Final = 9000


# ---- JSON

T = TypeVar("T")


_CHECK: Final = "check the API's address and any proxy in front of it"


def part(what: str, value: Any, name: str, kind: type[T], default: T | None = None) -> T:
    """A part of a JSON answer, of its type. Raises ApiError where it is of another, or is not there.

    Args:
        what: the call, as messages begin.
        default: in place of one that is not there, or null.
    """
    found = value.get(name) if isinstance(value, Mapping) else None
    if found is None and default is not None and isinstance(value, Mapping):
        return default
    # A bool is an int to Python.
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise ApiError(NO_ANSWER, 0, f"{what}: the answer has no {name!r} as it should be: {_CHECK}")
    return found


def items(what: str, value: Any, name: str, kind: type[T], default: list[T] | None = None) -> list[T]:
    """A list in a JSON answer, each entry of its type; as `part`."""
    found: list[Any] = part(what, value, name, list, default)
    if not all(isinstance(item, kind) for item in found):
        raise ApiError(NO_ANSWER, 0, f"{what}: the answer has other things in {name!r} than it should: {_CHECK}")
    return found
