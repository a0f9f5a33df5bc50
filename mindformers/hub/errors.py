"""What can go wrong with a hub, each as one clear error, whichever client library found it."""


class HubError(OSError):
    """A hub did not give or take what was asked; the message says what, where and the way out."""


class HubNotFoundError(HubError, FileNotFoundError):
    """No such repository, revision or file."""


class HubAccessError(HubError, PermissionError):
    """A private or gated repository, or a token that does not allow this."""


class HubOfflineError(HubError, ConnectionError):
    """No network, or it must not be used, and the cache does not hold what is needed."""


_NETWORK = {"ConnectError", "ConnectTimeout", "ConnectionError", "Timeout", "TimeoutException", "NetworkError",
            "ProtocolError", "RemoteProtocolError", "ProxyError", "SSLError", "OfflineModeIsEnabled",
            "ChunkedEncodingError", "TransportError"}


def kind_of(error):
    """Return what happened: "token", "gated", "forbidden", "revision", "entry", "repo", "busy", "server", "network"
    or "other".

    Both client libraries give their errors the same class names; the first of the chain that says something counts.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        names = {cls.__name__ for cls in type(error).__mro__}
        found = _kind_of_status(status_of(error), names) or ("network" if names & _NETWORK else None)
        if found is not None:
            return found
        error = error.__cause__ or error.__context__
    return "other"


def status_of(error):
    """Return the HTTP status that `error` carries, None without one."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) if response is not None else None


def _kind_of_status(status, names):
    if status is None:
        return None
    if status == 401:
        return "token"
    if "GatedRepoError" in names:
        return "gated"
    if status == 403:
        return "forbidden"
    if "RevisionNotFoundError" in names:
        return "revision"
    if "EntryNotFoundError" in names:
        return "entry"
    if status == 404:
        return "repo"
    if status == 429:
        return "busy"
    return "server" if status >= 500 else "other"


def translate(error, hub, repo_id, revision, doing="read"):
    """Return the HubError for what a client library raised while `doing` something with a repository.

    Args:
        hub: the client, with `title`, `login_hint` and `page(repo_id)`.
        doing (str): "read" or "write to". Default: "read".
    """
    where = f"{repo_id!r} on {hub.title}"
    kind, status = kind_of(error), status_of(error)
    login = f"{hub.login_hint}, or pass token="
    if kind == "token":
        return HubAccessError(f"cannot {doing} {where} (401): it does not exist, or is private, or the token is not "
                              f"valid. Check the name (a local folder of that name does not exist either); for a "
                              f"private repository {login}")
    if kind == "gated":
        return HubAccessError(f"{where} is gated: accept its terms at {hub.page(repo_id)} with your account, then "
                              f"{login}")
    if kind == "forbidden":
        return HubAccessError(f"cannot {doing} {where} (403): the token does not allow it; use one that does: {login}")
    if kind == "revision":
        return HubNotFoundError(f"{where} has no revision {revision!r}: give a branch, a tag or a commit of it")
    if kind == "entry":
        return HubNotFoundError(f"{where} at revision {revision!r} lacks a file that its listing names; try again")
    if kind == "repo":
        return HubNotFoundError(f"{where} does not exist (404), or is private: check the name (a local folder of that "
                                f"name does not exist either); for a private repository {login}")
    if kind == "busy":
        return HubError(f"{hub.title} answers too many requests (429); wait a minute and try again, or log in")
    if kind == "server":
        return HubError(f"{hub.title} has a fault of its own ({status}) for {repo_id!r}; try again later, or choose "
                        "another with mirror= or MF_HUB")
    if kind == "network":
        return HubOfflineError(f"no connection to {hub.endpoint} for {repo_id!r} ({_short(error)})")
    return HubError(f"cannot {doing} {where}: {_short(error)}")


def _short(error):
    """First line of an error's message, with its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
