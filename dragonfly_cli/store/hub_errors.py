"""What can go wrong between here and the hub, as errors that say what to do.

What stands in between is told apart from the hub: the log-in page of a proxy must never be taken for a file. Neither a
token nor a password that is part of an address is ever shown.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dragonfly_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

# Answers that came, by the names that they have in whichever library huggingface_hub asks through.
_NO_USE = ("TooManyRedirects", "UnsupportedProtocol", "DecodingError")
GO_ON = "check the network, then run the same command again: it goes on where it stopped"


def check_settings() -> None:
    """Raises UsageError for environment variables with which no hub can be asked; nothing is asked here."""
    try:
        from huggingface_hub import constants
        from huggingface_hub.hf_api import get_token  # reads the variables, and refuses some
        from huggingface_hub.utils import get_session

        get_session()
        token = get_token() or ""
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(
            f"the hub cannot be asked with these environment variables: {error}",
            "check HF_ENDPOINT, HF_HOME and the other HF_ ones, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE",
        ) from error
    if not token.isascii():
        raise UsageError("the token for the hub is none: it has characters that no token has", "check HF_TOKEN")
    address = urlsplit(constants.ENDPOINT)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError("HF_ENDPOINT is not the address of a hub", "unset it, or give one like https://HOST")


@contextmanager
def asking(repository: str) -> Iterator[None]:
    """Asks without telemetry, and turns what huggingface_hub raises into a ModelError that says what to do."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import get_session

    # it would describe this machine in every request, and ask the hub for a list of programs to look for
    constants.HF_HUB_DISABLE_TELEMETRY = True
    get_session().event_hooks["response"] = [lambda response: _refuse_answer(repository, response)]
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(
            f"{repository}: --offline, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so the hub is not asked",
            "go without it, or bring the model here with dragonfly model export and import, or dragonfly model convert",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(repository, error) from error
    except (errors.HTTPError, ConnectionError) as error:
        raise _unreached(repository, error) from error


def shown_endpoint() -> str:
    """The hub's address as it may be shown: without a name and password in it."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def _refuse_answer(repository: str, response: Any) -> None:
    """Raises ModelError for an answer that huggingface_hub would take for a file, or wait for, however long."""
    if response.status_code == 429:
        wait = response.headers.get("retry-after", "")
        raise ModelError(
            f"{repository}: the hub wants no more requests for now (429)",
            f"wait {f'{wait} seconds' if wait.isdecimal() else 'some minutes'}, then run the same command again: "
            "it goes on where it stopped",
        )
    if response.is_success and response.headers.get("content-type", "").startswith("text/html"):
        raise ModelError(
            f"{repository}: a web page came instead of what was asked for, as from a proxy that wants a log-in",
            f"open {shown_endpoint()} in a browser on this machine, then run the same command again: "
            "it goes on where it stopped",
        )


def _unreached(repository: str, error: Exception) -> ModelError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ModelError(
            f"{repository}: the certificate of {shown_endpoint()} is not trusted on this machine",
            "behind a proxy that reads what passes, set SSL_CERT_FILE to a file with its certificate among the others",
        )
    if type(error).__name__ in _NO_USE:
        return ModelError(
            f"{repository}: what {shown_endpoint()} answered cannot be used ({type(error).__name__})",
            "check HF_ENDPOINT and the proxy, or try later",
        )
    return ModelError(f"{repository}: no connection to {shown_endpoint()}", GO_ON)


def _refused(repository: str, error: "HfHubHTTPError") -> ModelError:
    from huggingface_hub import errors

    status = error.response.status_code
    page = f"{shown_endpoint()}/{repository}"
    gated = isinstance(error, errors.GatedRepoError)
    if gated or (status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError)):
        why = "it is gated, and access was refused" if gated else "access was refused"
        return ModelError(f"{repository}: {why} ({status})", _how_to_get_access(page))
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{repository}: there is no such repository, or it needs a token ({status})",
            f"check its name; or {_how_to_get_access(page)}",
        )
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return ModelError(f"{repository}: there is no such revision or file ({status})", f"see {page}")
    hint = GO_ON if status >= 500 else f"see whether {page} opens in a browser, and check HF_ENDPOINT"
    return ModelError(f"{repository}: the hub answered {status}", hint)


def _how_to_get_access(page: str) -> str:
    from huggingface_hub import get_token

    if get_token():
        return f"open {page} with the account of your token, accept its conditions, and let the token read gated models"
    return f"open {page}, accept its conditions, then set HF_TOKEN or run: hf auth login"
