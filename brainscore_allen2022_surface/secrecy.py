"""Credentials stay out of messages and logs."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECRETS = (
    # User and password in the address of a server. They may hold what an address may not, such as a space, a slash or an @.
    (re.compile(r"//[^\s/:@]*:[^\"'`]*@(?=[\w.\[-])"), "//"),
    (re.compile(r"//[^\s/:@]+@(?=[\w.\[-])"), "//"),
    (re.compile(r"(?<![\w:/.-])(?!arn:)[\w.+-]+:[^\s/]+@(?=[\w.-]+:[0-9])"), ""),  # without a scheme
    (re.compile(r"\?[^\s=?]+=\S+"), "?..."),  # tokens and signatures in an address
    (
        re.compile(r"\b(X-Amz-[\w-]+|AWSAccessKeyId|Signature|Credential)\s*[=:]\s*[^&\s,\"']+", re.IGNORECASE),
        r"\1=...",
    ),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1..."),  # ids of access keys: AWS IAM User Guide, "IAM identifiers"
)

LOGGERS = ("botocore", "boto3", "s3transfer", "urllib3")

_lock = threading.Lock()
_levels: list[list[int]] = []  # of these loggers before each download that is under way


def without_secrets(text: str) -> str:
    """Return a text in one line, without passwords, signatures and ids of access keys."""
    line = " ".join(text.split())
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    return line


@contextmanager
def quiet_requests() -> Iterator[None]:
    """Keep boto3 from logging its requests, even if the root logger is at DEBUG: they hold session tokens and passwords."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    with _lock:
        _levels.append([logger.level for logger in loggers])
        for logger in loggers:
            logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        with _lock:
            levels = _levels.pop(0)
            if _levels:  # another thread still downloads, and then restores the levels
                _levels[0] = levels
            else:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)
