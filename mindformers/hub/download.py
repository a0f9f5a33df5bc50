"""`resolve`: from a name to a local folder with the files that are needed, fetched when they are not here."""
import importlib
import json
import os
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

from mindformers.hub import files
from mindformers.hub.cache import RepoCache
from mindformers.hub.errors import HubError, HubNotFoundError, HubOfflineError, translate
from mindformers.hub.fetch import fetch, together
from mindformers.hub.names import HUB_OPTIONS, check_hub, check_revision, choose_hub, parse
from mindformers.tools.env import environment
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.logger import logger

_listings = {}  # (hub, endpoint, token, repository, commit) -> Listing: a commit never changes


def resolve(name, *, kind="model", subfolder="", variant=None, use_safetensors=None, among=None, **options):
    """Return the local folder of a repository, with what `kind` needs in it.

    A path that exists comes back as it is. A name asks the hub of its prefix (``hf://owner/name``,
    ``openmind://owner/name``), else of MF_HUB, else of the client library that is installed. Only what is needed and
    not in the cache is fetched; without a network the cache answers when it is complete.

    Args:
        name (str | PathLike): local path, or repository.
        kind (str): "config", "model" (configuration and weights), "weights", "tokenizer", "processor",
            "generation_config" or "code". Default: "model".
        subfolder (str): folder of the repository whose files are meant; the root of all is returned. Default: "".
        variant (str | None): "fp16" for model.fp16.safetensors. Default: None.
        use_safetensors (bool | None): see `files.wanted`. Default: None.
        among (dict | None): hub -> repository, as the section `hub` of a YAML has it; `name` is then only what the
            messages say. Default: None.
        cache_dir (str): folder of the cache. Default: the client library's.
        force_download (bool): fetch anew what is in the cache. Default: False.
        resume_download (bool): go on with interrupted downloads. Default: True.
        proxies (dict): proxy by protocol ("https") or address. Default: those of the environment.
        local_files_only (bool): ask no hub. Default: False.
        token (str | bool): login; `use_auth_token` is its older name. Default: the client library's.
        revision (str): branch, tag or commit. Default: what the name says after @, else "main".
        mirror, endpoint (str): address of the hub. Default: the client library's.

    Raises:
        FileNotFoundError: a path that does not exist, or no such repository, revision or files (HubNotFoundError).
        PermissionError: private, gated, or a token that does not do (HubAccessError).
        ConnectionError: no network and not in the cache (HubOfflineError).
        OSError: any other fault of a hub (HubError).
        ImportError: no client library.
        TypeError, ConfigError: arguments.
    """
    _check(options)
    files.check_kind(kind)
    if among is None and os.path.exists(os.path.expanduser(name)):
        return os.path.expanduser(os.fspath(name))
    request = _Request(name, among, options)
    with request.proxied():
        folder = request.folder(kind, subfolder, variant, use_safetensors)
    return str(folder)


def describe(name, kind="weights", subfolder="", variant=None, **options):
    """Return ``{path: bytes}`` of what `resolve` would fetch or has fetched, asking the hub for sizes only.

    The shards of an index are those whose names begin like it. Arguments and errors as in `resolve`.
    """
    _check(options)
    request = _Request(name, None, options)
    if request.offline:
        raise HubOfflineError(f"the sizes of {os.fspath(name)!r} are not known: {_forbidden(request.offline)}")
    with request.proxied():
        listing = request.listing()
    found = files.wanted(listing.files, kind, subfolder, variant)
    for index in [path for path in found if files.is_index(path)]:
        stem = index.split(".", maxsplit=1)[0]
        found += [path for path in listing.files if path.startswith(f"{stem}-") and "-of-" in path]
    return {path: listing.files[path].size for path in found}


def _check(options):
    for key in options:
        if key not in HUB_OPTIONS:
            raise TypeError(f"resolve got an unexpected keyword {key!r}.{did_you_mean(key, HUB_OPTIONS)}")
    if options.get("token") is not None and options.get("use_auth_token") is not None:
        raise ValueError("token and use_auth_token are two names of one argument; give only token")


class _Request:
    """One repository, as one call asks for it."""

    def __init__(self, name, among, options):
        repo = None if among else parse(os.fspath(name))
        if repo is None and not among:
            raise FileNotFoundError(f"{os.fspath(name)!r} does not exist, and is no owner/name of a repository on a "
                                    "hub either")
        hub = choose_hub(repo and repo.hub, among)
        self.name = name
        self.repo_id = {check_hub(key): value for key, value in among.items()}[hub] if among else repo.repo_id
        self.revision = check_revision(options.get("revision") or (repo.revision if repo else None))
        self.force, self.proxies = bool(options.get("force_download")), options.get("proxies")
        self.resume = options.get("resume_download") is not False
        token = options.get("token") if options.get("token") is not None else options.get("use_auth_token")
        self.client, self._explained = open_client(hub, self.repo_id, options.get("mirror") or options.get("endpoint"),
                                                   token, self.revision)
        self.cache = RepoCache(options.get("cache_dir") or self.client.default_cache(), self.repo_id)
        self.offline = "local_files_only=True" if options.get("local_files_only") else self.client.offline_by()
        self._key = (hub, self.client.endpoint, token, self.repo_id)

    def proxied(self):
        """Context manager: connections go through `proxies`."""
        return _proxied(self.client, self.proxies) if self.proxies else nullcontext()

    # -- what is needed -------------------------------------------------------------------------------------------

    def folder(self, kind, *choice):
        """Return the snapshot that holds `kind`."""
        if self.offline:
            if self.force:
                raise ConfigError(f"force_download=True fetches {self.repo_id!r} anew, but {_forbidden(self.offline)}")
            return self._from_cache(kind, choice, _forbidden(self.offline))
        if self.revision == self.cache.commit_of(self.revision) and not self.force:
            found, _ = self._held(kind, choice)  # a commit never changes: nothing to ask
            if found is not None:
                return found
        try:
            listing = self.listing()
            return self._fetch_all(listing, kind, choice)
        except HubError as error:
            if self.force or isinstance(error, HubNotFoundError):
                raise
            found, _ = self._held(kind, choice)
            if found is None:
                if isinstance(error, HubOfflineError):
                    return self._from_cache(kind, choice, str(error))
                raise
            logger.warning("%s; taking %s from the cache %s", error, self.repo_id, self.cache.root)
            return found

    def listing(self):
        """Return the Listing at the revision, asking the hub once per commit."""
        found = _listings.get((*self._key, self.revision))
        if found is None:
            with self._explained():
                found = self.client.listing(self.repo_id, self.revision)
            self.cache.snapshot(found.commit)  # checked: it is about to be a folder
            _listings[(*self._key, found.commit)] = found
        return found

    def _fetch_all(self, listing, kind, choice):
        """Fetch what is needed of a listing, then remember which commit the revision is."""
        paths = self._wanted(listing.files, kind, choice)
        self._fetch(listing, paths)
        for index in filter(files.is_index, paths):
            shards = self._shards(listing.commit, index)
            absent = [path for path in shards if path not in listing.files]
            if absent:
                raise HubNotFoundError(f"{self.repo_id!r}: {index} names {absent[0]}, which the repository lacks")
            self._fetch(listing, shards)
        self.cache.remember(self.revision, listing.commit)
        return self.cache.snapshot(listing.commit)

    def _fetch(self, listing, paths):
        def one(path, stop):
            with self._explained():
                fetch(self.client, self.cache, listing, listing.files[path], self.revision, self.force, self.resume,
                      stop)
        together(one, paths)

    def _wanted(self, names, kind, choice):
        try:
            return files.wanted(names, kind, *choice)
        except HubNotFoundError as error:
            raise HubNotFoundError(f"{self.repo_id!r} on {self.client.title} at revision {self.revision!r} has "
                                   f"{error}") from None

    def _shards(self, commit, index):
        path = self.cache.pointer(commit, index)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise HubError(f"{self.repo_id!r}: {index} is no valid JSON ({error})") from error
        return files.shards_of(index, content)

    # -- without the hub ------------------------------------------------------------------------------------------

    def _held(self, kind, choice):
        """Return (snapshot, "") when the cache holds all that is needed, else (None, what it lacks)."""
        commit = self.cache.commit_of(self.revision)
        if commit is None or not self.cache.snapshot(commit).is_dir():
            return None, f"nothing of revision {self.revision!r}"
        held = self.cache.held(commit)
        try:
            paths = files.wanted(held, kind, *choice)
            shards = [path for index in filter(files.is_index, paths) for path in self._shards(commit, index)]
        except HubNotFoundError as error:
            return None, str(error)
        absent = [path for path in shards if path not in held]
        return (None, f"no {absent[0]}") if absent else (self.cache.snapshot(commit), "")

    def _from_cache(self, kind, choice, reason):
        found, lack = self._held(kind, choice)
        if found is None:
            raise HubOfflineError(f"{reason}, and the cache {self.cache.root} has of {self.repo_id!r} {lack}. Fetch it "
                                  "where there is a network, give cache_dir= of a copy, or give a local folder")
        return found


def _forbidden(offline):
    return "asking the hub is forbidden by " + (offline if "=" in offline else f"{offline}=1")


def open_client(hub, repo_id, endpoint, token, revision):
    """Return (client of a hub, context manager that turns what its library raises into one HubError).

    Raises:
        ConfigError: an endpoint that is no address, or one that the library does not take.
    """
    if endpoint is not None and urlsplit(str(endpoint)).scheme not in ("http", "https"):
        raise ConfigError(f"mirror {endpoint!r} must be the address of a hub, such as https://hf-mirror.com")
    try:
        client = importlib.import_module(f"mindformers.hub.{hub}").client(endpoint, token)
    except ValueError as error:
        raise ConfigError(f"{repo_id!r}: {error}") from error

    @contextmanager
    def explained(doing="read"):
        try:
            yield
        except (HubError, ImportError, TypeError, ConfigError, UnsupportedError):
            raise
        except Exception as error:  # of two client libraries and the three they stand on; translated, never swallowed
            raise translate(error, client, repo_id, revision, doing) from error

    return client, explained


@contextmanager
def _proxied(client, proxies):
    """Make both libraries, which read proxies from the environment, use those of `proxies` meanwhile."""
    if not isinstance(proxies, dict) or not all(isinstance(value, str) for pair in proxies.items() for value in pair):
        raise TypeError(f"proxies must be a dict such as {{'https': 'http://host:port'}}, but got {proxies!r}")
    chosen = {}
    for key, value in proxies.items():  # an address wins over a protocol
        scheme, _, address = key.partition("://")
        if not address or urlsplit(key).netloc == urlsplit(client.endpoint).netloc:
            chosen[f"{scheme}_proxy"] = value if address else chosen.get(f"{scheme}_proxy", value)
    chosen.update({name.upper(): value for name, value in chosen.items()})
    client.reconnect()
    try:
        with environment(chosen):
            yield
    finally:
        client.reconnect()
