"""The Hugging Face Hub, through `huggingface_hub`."""
import importlib.util
import posixpath

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from mindformers.hub.files import Listing, RepoFile
from mindformers.tools.env import get_env, is_on
from mindformers.version_control import __version__

_TIMEOUT = 10.0  # seconds for an answer about a repository
_LIBRARY = {"library_name": "mindformers", "library_version": __version__}


class HuggingFace:
    """One hub with one login.

    Args:
        endpoint (str | None): address of a mirror. Default: HF_ENDPOINT, else https://huggingface.co.
        token (str | bool | None): None and True take the login of `hf auth login`, True insists; False sends none.
    """

    name, title, prefix = "huggingface", "the Hugging Face Hub", "hf://"
    login_hint = "log in with `hf auth login`"

    def __init__(self, endpoint=None, token=None):
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.token = token
        self._api = huggingface_hub.HfApi(endpoint=self.endpoint, token=token, **_LIBRARY)

    @staticmethod
    def default_cache():
        """The cache of the client library (HF_HUB_CACHE, HF_HOME)."""
        return constants.HF_HUB_CACHE

    @staticmethod
    def offline_by():
        """Name of the variable that forbids the network, None when it may be used."""
        found = next((name for name in ("MF_HUB_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if is_on(name)),
                     None)
        return found or ("HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else None)

    def page(self, repo_id):
        """Web page of a repository."""
        return f"{self.endpoint}/{repo_id}"

    @staticmethod
    def reconnect():
        """Forget open connections, which keep the proxies they were made with."""
        huggingface_hub.close_session()

    # -- reading --------------------------------------------------------------------------------------------------

    def listing(self, repo_id, revision):
        """Return the Listing of a repository at a revision."""
        info = self._api.model_info(repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        return Listing(repo_id, info.sha, {one.rfilename: _file_of(one) for one in info.siblings or ()})

    def get(self, listing, file, stream, have):
        """Write the content of a file into `stream`, from byte `have` on."""
        url = huggingface_hub.hf_hub_url(listing.repo_id, file.path, revision=listing.commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token, **_LIBRARY)
        headers["Accept-Encoding"] = "identity"  # a compressed answer cannot be taken up in the middle
        http_get(url, stream, resume_size=have, headers=headers, expected_size=file.size,
                 displayed_filename=posixpath.basename(file.path))

    def fetch_itself(self, listing, file, cache, force):
        """Whether the client library fetched the file into the cache: what lies in Xet storage, with hf_xet."""
        if not file.large or constants.HF_HUB_DISABLE_XET or importlib.util.find_spec("hf_xet") is None:
            return False
        url = huggingface_hub.hf_hub_url(listing.repo_id, file.path, revision=listing.commit, endpoint=self.endpoint)
        metadata = huggingface_hub.get_hf_file_metadata(url, token=self.token, endpoint=self.endpoint)
        if getattr(metadata, "xet_file_data", None) is None:
            return False
        huggingface_hub.hf_hub_download(listing.repo_id, file.path, revision=listing.commit, cache_dir=cache.root,
                                        force_download=force, token=self.token, endpoint=self.endpoint, **_LIBRARY)
        return True

    # -- writing --------------------------------------------------------------------------------------------------

    def create(self, repo_id, private, revision):
        """Make the repository, and the branch `revision`, when missing; returns its full name."""
        repo_id = self._api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision not in (None, "main") and not revision.startswith("refs/"):
            self._api.create_branch(repo_id, branch=revision, exist_ok=True)
        return repo_id

    def upload(self, repo_id, paths, message, description, revision, create_pr):
        """Write local files ``{path in the repository: local path}`` in one commit; returns its address."""
        operations = [huggingface_hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(local))
                      for path, local in paths.items()]
        commit = self._api.create_commit(repo_id, operations, commit_message=message, commit_description=description,
                                         revision=revision, create_pr=create_pr)
        return str(commit.pr_url or commit.commit_url)


def _file_of(sibling):
    lfs = sibling.lfs
    return RepoFile(sibling.rfilename, sibling.size, lfs.sha256 if lfs else sibling.blob_id, bool(lfs))


def client(endpoint=None, token=None):
    """Return the client of this hub."""
    return HuggingFace(endpoint or get_env("HF_ENDPOINT") or None, token)
