"""Failures of an MLflow store in one line each: what failed and what to do, never with a password."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror

LONGEST = 160  # characters of a message that is not explained here
USER = re.compile(r"(?<=://)[^/?#\s]*@")
SECRET = re.compile(r"(?i)\b((?:password|passwd|pwd|token)=)[^&\s'\"]*")
LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
WRONG_NAME, WRONG_ADDRESS, EXPIRED = 62, 64, 10
"""Verification codes of OpenSSL (x509_vfy.h)."""
CERTIFICATE_ADVICE = {
    WRONG_NAME: "use the host name that the certificate is made for",
    WRONG_ADDRESS: "use the host name that the certificate is made for",
    EXPIRED: "the server needs a new certificate",
}
TRUST = "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of this certificate or of its authority"


class TrackingUnavailable(Exception):
    """MLflow is not installed or its store failed. No result is lost: the ledger has them all."""


@contextmanager
def reported(uri: str) -> Iterator[None]:
    """Turn any exception of MLflow or its store at ``uri`` into TrackingUnavailable, which does not stop a run."""
    try:
        yield
    except TrackingUnavailable:
        raise
    except Exception as error:
        raise TrackingUnavailable(explained(error, uri)) from error


def without_user(text: str) -> str:
    """Return a text without the users and passwords of the URIs in it: "https://ann:secret@host" -> "https://host".

    Passwords in queries are replaced: "?password=***".
    """
    return SECRET.sub(r"\1***", USER.sub("", text))


def explained(error: BaseException, uri: str) -> str:
    """Return one line about an exception of the store at ``uri``: what failed, and what to do if that is known."""
    from urllib3.exceptions import ResponseError

    server, chain = f"the server at {without_user(uri)}", _chain(error)
    for cause in reversed(chain):
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = CERTIFICATE_ADVICE.get(cause.verify_code, TRUST)
            return f"the certificate of {server} is not trusted ({cause.verify_message.rstrip('.')}): {advice}"
        if isinstance(cause, ssl.SSLError):
            return f"{server} does not speak TLS as expected ({cause.reason}): use http:// if it has no certificate"
        if isinstance(cause, TimeoutError):
            return f"{server} does not answer; MLFLOW_HTTP_REQUEST_TIMEOUT sets the seconds to wait for it"
        if isinstance(cause, (ConnectionError, gaierror)):
            return f"{server} cannot be reached ({cause.strerror or cause})"
        if isinstance(cause, ResponseError):  # "too many 502 error responses"
            return f"{server} failed: {cause}"
    statuses = [status for cause in chain if (status := _status(cause))]
    if 401 in statuses:
        return f"{server} needs a valid user and password, or a valid token (401): {LOGIN}"
    if 403 in statuses:
        detail = _first_line(error).rpartition("Response body: ")[2].strip("'")
        return f"{server} does not permit this (403, {detail}): ask its administrator"
    if getattr(error, "error_code", "") == "ENDPOINT_NOT_FOUND":
        return f"{server} does not answer as an MLflow server does (404): is the address complete?"
    # What the operating system says is deepest in the chain: a file of certificates that does not exist.
    cause = next((cause for cause in reversed(chain) if isinstance(cause, OSError)), error)
    advice = "; 'poolbench doctor' checks it" if uri.startswith("sqlite") else ""
    return f"the store at {without_user(uri)} cannot be used ({type(cause).__name__}: {_first_line(cause)}){advice}"


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and what led to it, the latest first."""
    found = [error]
    while True:
        last = found[-1]
        # urllib3 hands on what broke a connection as an argument.
        given = next((one for one in last.args if isinstance(one, BaseException)), None)
        cause = last.__cause__ or last.__context__ or given
        if cause is None or cause in found:
            return found
        found.append(cause)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of MLflow (tracking) or requests (artifacts) stands for, if any."""
    from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return ERROR_CODE_TO_HTTP_STATUS.get(error.error_code)
    if isinstance(error, HTTPError) and error.response is not None:
        return int(error.response.status_code)
    return None


def _first_line(error: BaseException) -> str:
    return without_user((str(error).strip() or "no message").splitlines()[0])[:LONGEST]
