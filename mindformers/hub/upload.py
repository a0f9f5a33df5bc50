"""To a hub: `push_folder` for files, `PushToHubMixin` for whatever has a `save_pretrained`."""
import contextlib
import io
import os
import tempfile
from pathlib import Path

from mindformers.hub.card import add_tags, license_in, model_card
from mindformers.hub.download import open_client
from mindformers.hub.errors import HubError, HubOfflineError, kind_of
from mindformers.hub.names import RepoName, check_revision, choose_hub, parse
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger

CARD = "README.md"
# what push_to_hub and save_pretrained(push_to_hub=True) take
PUSH_OPTIONS = ("repo_id", "commit_message", "private", "token", "use_auth_token", "create_pr", "revision",
                "commit_description", "tags", "mirror", "endpoint")


def push_folder(folder, repo_id, paths=None, commit_message=None, private=None, token=None, create_pr=False,
                revision=None, commit_description=None, tags=(), card=None, path_in_repo="", endpoint=None):
    """Upload files of a folder in one commit; the repository, and the branch `revision`, are made when missing.

    A card (README.md) is written when neither the folder nor the repository has one. One that the repository has stays
    as it is, but for `tags` that its head lacks.

    Args:
        folder (str): local folder.
        repo_id (str): "owner/name", "name" (of the user's own), or with a prefix such as ``openmind://owner/name``.
        paths (Iterable[str] | None): files of the folder, by relative path. Default: None, all but hidden ones.
        commit_message (str | None): default "Upload with MindFormers".
        private (bool | None): visibility of a new repository. Default: None, the hub's own.
        token (str | bool | None): login with the right to write. Default: the client library's.
        create_pr (bool): open a pull request instead of writing to the branch (Hugging Face). Default: False.
        revision (str | None): branch. Default: None, "main".
        commit_description (str | None): body of the commit message. Default: None.
        tags (Iterable[str]): words for the card. Default: ().
        card (dict | None): facts for a new card, arguments of `model_card`; None writes no card. Default: None.
        path_in_repo (str): folder of the repository. Default: "".
        endpoint (str | None): address of the hub. Default: the client library's.

    Returns:
        str, the address of the commit or pull request.

    Raises:
        OSError: of the hub, see `hub.resolve`.
        FileNotFoundError: nothing to upload.
    """
    folder = Path(folder)
    chosen = sorted(paths) if paths is not None else _visible(folder)
    if not chosen:
        raise FileNotFoundError(f"{folder} has no files to upload")
    repo = _repository(repo_id)
    client, explained = open_client(choose_hub(repo.hub), repo.repo_id, endpoint, token, revision or "main")
    if client.offline_by():
        raise HubOfflineError(f"nothing is uploaded to {repo.repo_id!r}: asking the hub is forbidden by "
                              f"{client.offline_by()}=1")
    prefix = f"{path_in_repo.strip('/')}/" if path_in_repo else ""
    files = {f"{prefix}{path}": folder / path for path in chosen}
    with explained("write to"), tempfile.TemporaryDirectory() as scratch:
        name = client.create(repo.repo_id, private, check_revision(revision) if revision else None)
        if card is not None and not prefix:
            text = _card_text(client, name, revision, folder, files, tags, card)
            if text is not None:
                files[CARD] = Path(scratch) / CARD
                files[CARD].write_text(text, encoding="utf-8", newline="")
        address = client.upload(name, files, commit_message or "Upload with MindFormers", commit_description or "",
                                revision, create_pr)
    logger.info("uploaded %d files to %s: %s", len(files), client.page(name), address)
    return address


def _repository(repo_id):
    """The RepoName of what the user gave; a plain name is one of the user's own repositories."""
    if not isinstance(repo_id, str) or not repo_id:
        raise TypeError(f"repo_id must be 'owner/name', but got {repo_id!r}")
    found = parse(repo_id) or (RepoName(repo_id) if parse(f"me/{repo_id}") else None)
    if found is None:
        raise ConfigError(f"repo_id {repo_id!r} is no name of a repository: write owner/name")
    return found


def _visible(folder):
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _card_text(client, name, revision, folder, files, tags, card):
    """The card to write, None to leave it alone."""
    if CARD in files:
        return None
    text = _read(client, name, CARD, revision or "main")
    if text is not None:
        tagged = add_tags(text, tags)
        return None if tagged == text else tagged
    if (folder / CARD).is_file():
        return add_tags((folder / CARD).read_text(encoding="utf-8"), tags)
    facts, base = dict(card), card.get("base_model")
    if base:
        facts.update(license=facts.get("license") or _license_of(client, base), base_page=client.page(base))
    return model_card(name, tags=tags, **facts)


def _read(client, name, path, revision):
    """Text of a small file of a repository, None when it has none, or nothing at all yet."""
    try:
        listing = client.listing(name, revision)
    except Exception as error:  # a new repository has no revision on some hubs
        if kind_of(error) in ("revision", "entry"):
            return None
        raise
    if path not in listing.files:
        return None
    content = io.BytesIO()
    client.get(listing, listing.files[path], content, 0)
    return content.getvalue().decode("utf-8")


def _license_of(client, base):
    """License of the base model as its card on the same hub says; a card without one is still a card."""
    _, explained = open_client(client.name, base, client.endpoint, client.token, "main")
    try:
        with explained("read"):
            return license_in(_read(client, base, CARD, "main") or "")
    except HubError as error:
        logger.info("the card states no license: that of the base model is not known (%s)", error)
        return None


class PushToHubMixin:
    """For a class with ``save_pretrained(folder)``: `push_to_hub`, and the work of ``push_to_hub=True`` in saving."""

    def push_to_hub(self, repo_id, use_temp_dir=None, commit_message=None, private=None, token=None,
                    max_shard_size="5GB", create_pr=False, safe_serialization=True, revision=None,
                    commit_description=None, tags=None, **kwargs):
        """Save, and upload what was saved, in one commit.

        Args:
            repo_id (str): "owner/name", "name", or with a prefix (``openmind://owner/name``).
            use_temp_dir (bool | None): save into a temporary folder; False into the folder called like the repository.
                Default: None, True unless that folder exists.
            max_shard_size, safe_serialization: of a model's weights, see its `save_pretrained`.
            commit_message, private, token, create_pr, revision, commit_description, tags: see `hub.push_folder`.
            **kwargs: `use_auth_token`, `mirror`, `endpoint`.

        Returns:
            str, the address of the commit or pull request.

        Raises:
            TypeError: an unknown argument.
            OSError: of the hub, see `hub.resolve`.
        """
        given = {"repo_id": repo_id, "commit_message": commit_message, "private": private, "token": token,
                 "create_pr": create_pr, "revision": revision, "commit_description": commit_description, "tags": tags,
                 **kwargs}
        check_push_options(given, "push_to_hub")
        own = _repository(repo_id).repo_id.split("/")[-1]
        with tempfile.TemporaryDirectory() as scratch:
            folder = own if use_temp_dir is False or use_temp_dir is None and os.path.isdir(own) else scratch
            with uploading(self, folder, given) as pushed:
                self._save_for_hub(folder, max_shard_size=max_shard_size, safe_serialization=safe_serialization)
        return pushed[0]

    def _save_for_hub(self, folder, **weights):
        """Save into `folder`; only models have `weights` to save."""
        self.save_pretrained(folder)

    def _card_facts(self):
        """Arguments of `model_card` that this object knows."""
        return {"what": type(self).__name__}

    def _card_tags(self):
        """Tags that this object carries."""
        return ()


def check_push_options(options, caller="save_pretrained"):
    """Refuse what no upload takes.

    Raises:
        TypeError: an unknown argument; ValueError: both `token` and `use_auth_token`.
    """
    for key in options:
        if key not in PUSH_OPTIONS:
            raise TypeError(f"{caller} got an unexpected keyword {key!r}.{did_you_mean(key, PUSH_OPTIONS)}")
    if options.get("token") is not None and options.get("use_auth_token") is not None:
        raise ValueError("token and use_auth_token are two names of one argument; give only token")


@contextlib.contextmanager
def uploading(owner, folder, options):
    """Context manager: files that the body writes into `folder` are uploaded when it ends well.

    Args:
        owner (PushToHubMixin): whose card and tags are meant.
        folder (str): need not exist yet.
        options (dict): see `PUSH_OPTIONS`; `repo_id` defaults to the folder's name.

    Yields:
        A list, which holds the address of the commit afterwards.
    """
    check_push_options(options)
    folder, options, result = Path(folder), dict(options), []
    before = _stamps(folder)
    yield result
    changed = [path for path, stamp in _stamps(folder).items() if before.get(path) != stamp]
    token, older = options.pop("token", None), options.pop("use_auth_token", None)
    mirror, endpoint = options.pop("mirror", None), options.pop("endpoint", None)
    tags = options.pop("tags", None) or ()
    tags = [*owner._card_tags(), *([tags] if isinstance(tags, str) else tags)]
    result.append(push_folder(folder, options.pop("repo_id", None) or folder.resolve().name, changed,
                              token=token if token is not None else older, endpoint=mirror or endpoint, tags=tags,
                              card=owner._card_facts(), **options))


def _stamps(folder):
    """{relative path: what changes when it is written}; writing replaces files, so the inode does."""
    if not folder.is_dir():
        return {}
    stats = {path: (folder / path).stat() for path in _visible(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}
