"""The openMind hub (Modelers, https://modelers.cn), through `openmind_hub`."""
import posixpath

import openmind_hub
from openmind_hub.plugins.openmind import constants
from openmind_hub.plugins.openmind.utils._http import reset_sessions

from mindformers.hub.files import Listing, RepoFile
from mindformers.tools.env import is_on
from mindformers.tools.errors import ConfigError, UnsupportedError


class OpenMind:
    """One hub with one token.

    Args:
        endpoint (str | None): address, https only. Default: OPENMIND_HUB_ENDPOINT, else https://modelers.cn.
        token (str | None): the library keeps no login.

    Raises:
        ConfigError: ``token=True``.
    """

    name, title, prefix = "openmind", "the openMind hub", "openmind://"
    login_hint = f"make a token at {constants.OPENMIND_TOKEN_URL}"

    def __init__(self, endpoint=None, token=None):
        if token is True:
            raise ConfigError(f"token=True: openmind_hub keeps no login; {self.login_hint} and pass it as token=")
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.token = token or None
        self._api = openmind_hub.OmApi(endpoint=self.endpoint, token=self.token)

    @staticmethod
    def default_cache():
        """The cache of the client library (below XDG_CACHE_HOME)."""
        return openmind_hub.OM_HUB_CACHE

    @staticmethod
    def offline_by():
        """Name of the variable that forbids the network, None when it may be used; openmind_hub has none itself."""
        return next((name for name in ("MF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if is_on(name)), None)

    def page(self, repo_id):
        """Web page of a repository."""
        return f"{self.endpoint}/models/{repo_id}"

    @staticmethod
    def reconnect():
        """Forget open connections, which keep the proxies they were made with."""
        reset_sessions()

    # -- reading --------------------------------------------------------------------------------------------------

    def listing(self, repo_id, revision):
        """Return the Listing of a repository at a revision."""
        commit = self._api.get_repo_last_commit(repo_id, revision=revision, token=self.token).oid
        tree = self._api.list_repo_tree(repo_id, recursive=True, revision=revision, token=self.token)
        return Listing(repo_id, commit, {one.path: RepoFile(one.path, one.size, one.blob_id, bool(one.lfs))
                                         for one in tree if isinstance(one, openmind_hub.RepoFile)})

    def get(self, listing, file, stream, have):
        """Write the content of a file into `stream`, from byte `have` on."""
        url = openmind_hub.om_hub_url(listing.repo_id, file.path, revision=listing.commit, endpoint=self.endpoint)
        headers = openmind_hub.build_om_headers(token=self.token, library_name="mindformers")
        headers["Accept-Encoding"] = "identity"  # a compressed answer cannot be taken up in the middle
        openmind_hub.http_get(url, stream, headers=headers, resume_size=have, expected_size=file.size,
                              displayed_filename=posixpath.basename(file.path))

    def fetch_itself(self, listing, file, cache, force):
        """False: this hub has one way to fetch."""
        return False

    # -- writing --------------------------------------------------------------------------------------------------

    def create(self, repo_id, private, revision):
        """Make the repository, and the branch `revision`, when missing; returns its full name."""
        if "/" not in repo_id:
            repo_id = f"{self._api.whoami(token=self.token)['username']}/{repo_id}"
        self._api.create_repo(repo_id, token=self.token, private=bool(private), exist_ok=True)
        if revision not in (None, "main"):
            self._api.create_branch(repo_id, branch=revision, token=self.token, exist_ok=True)
        return repo_id

    def upload(self, repo_id, paths, message, description, revision, create_pr):
        """Write local files ``{path in the repository: local path}`` in one commit; returns its address.

        Raises:
            UnsupportedError: `create_pr`.
        """
        if create_pr:
            raise UnsupportedError("create_pr=True: openmind_hub opens no pull requests; push to a branch with "
                                   "revision=, and open it on the web page")
        operations = [openmind_hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(local))
                      for path, local in paths.items()]
        commit = self._api.create_commit(repo_id, operations, commit_message=message, commit_description=description,
                                         token=self.token, revision=revision or "main")
        return getattr(commit, "commit_url", None) or self.page(repo_id)


def client(endpoint=None, token=None):
    """Return the client of this hub."""
    return OpenMind(endpoint, token)
