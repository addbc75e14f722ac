"""Whose users a server's IAM has."""

from __future__ import annotations

from typing import Any


def user_names(iam: Any) -> list[str]:
    """The name of every user, sorted: ListUsers answers with 100 at most, and many tests share one server."""
    pages = iam.get_paginator("list_users").paginate()
    return sorted(user["UserName"] for page in pages for user in page["Users"])
