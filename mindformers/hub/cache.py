"""The folder a repository has in a hub's cache: blobs by content, snapshots by commit, refs by branch.

Both client libraries keep this layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so what they
fetched is found here and the other way round.
"""
import hashlib
import os
import re
import shutil
from pathlib import Path

from mindformers.hub import files
from mindformers.hub.errors import HubError
from mindformers.tools.utils import atomic_write

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_TAG = re.compile(r"[0-9A-Za-z._-]{8,128}")
_CHUNK = 1 << 20


class RepoCache:
    """The folder of one repository.

    Args:
        root (str | Path): the cache of the hub.
        repo_id (str): "owner/name".
    """

    def __init__(self, root, repo_id):
        self.root = Path(root).expanduser().absolute()
        name = "--".join(["models", *repo_id.split("/")])
        self.folder, self._locks = self.root / name, self.root / ".locks" / name

    def commit_of(self, revision):
        """Return the commit that a branch or tag had when it was last fetched, None when it never was."""
        if _COMMIT.fullmatch(revision):
            return revision
        ref = self.folder / "refs" / revision
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
        return commit if _COMMIT.fullmatch(commit) else None

    def remember(self, revision, commit):
        """Write down that `revision` is `commit`."""
        if revision != commit and self.commit_of(revision) != commit:
            with atomic_write(self.folder / "refs" / revision) as temporary:
                temporary.write_text(commit, encoding="utf-8")

    def snapshot(self, commit):
        """Folder of a commit.

        Raises:
            HubError: the hub's answer is no commit; it would name another folder.
        """
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise HubError(f"{self.folder.name}: the hub answers with commit {commit!r}, which is none")
        return self.folder / "snapshots" / commit

    def held(self, commit):
        """Paths of the files that are here of a commit."""
        snapshot = self.snapshot(commit)
        return [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]

    def pointer(self, commit, path):
        """Where a file of a commit is seen.

        Raises:
            HubError: a path that leads out of the folder.
        """
        if not files.is_safe(path):
            raise HubError(f"the repository holds a file named {path!r}, which would lead out of its folder; refused")
        return self.snapshot(commit) / path

    def blob(self, file):
        """Where the content of a RepoFile is kept; its etag is its name."""
        if not _TAG.fullmatch(file.etag or ""):
            raise HubError(f"the hub gives {file.path!r} the tag {file.etag!r}, which is none")
        return self.folder / "blobs" / file.etag

    def lock(self, file):
        """Path of the lock that processes take to fetch a file; not the client library's, which it takes within."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return self._locks / f"{file.etag}.fetch.lock"

    def link(self, commit, file):
        """Make the snapshot show the file; a link, or a copy where the file system has none."""
        pointer, blob = self.pointer(commit, file.path), self.blob(file)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{pointer.name}.{os.getpid()}")
        try:
            temporary.symlink_to(os.path.relpath(blob, pointer.parent))
        except (OSError, NotImplementedError):
            shutil.copyfile(blob, temporary)
        os.replace(temporary, pointer)
        return pointer


def is_intact(path, file):
    """Whether the content at `path` is what the tag of `file` says: sha256, or git's sha1 of the blob.

    A tag of another form says nothing about the content; then the size decides.
    """
    size = os.path.getsize(path)
    if file.size is not None and size != file.size:
        return False
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.etag):
        return True
    digest = hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.etag
