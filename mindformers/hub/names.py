"""What a name means: a repository of a hub or not, and which hub."""
import importlib.util
import re
from dataclasses import dataclass

from mindformers.tools.env import get_env
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.repo_names import PART, PREFIXES, is_owner_and_name

PACKAGES = {"huggingface": "huggingface_hub", "openmind": "openmind_hub"}

# what `resolve` and every `from_pretrained` take
HUB_OPTIONS = ("cache_dir", "force_download", "resume_download", "proxies", "local_files_only", "token",
               "use_auth_token", "revision", "code_revision", "mirror", "endpoint")

_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)


@dataclass(frozen=True)
class RepoName:
    """A repository: its name, and the hub and revision when the name says them."""

    repo_id: str
    hub: str | None = None
    revision: str | None = None


def parse(name):
    """Return the RepoName of ``owner/name`` or ``hf://owner/name@revision``, None for anything else.

    Prefixes: ``hf://`` and ``huggingface://``, ``openmind://`` and ``modelers://``. Nothing is looked up.

    Raises:
        ConfigError: a prefix followed by something that is no repository, or an unknown prefix.
    """
    text = str(name)
    prefix, separator, rest = text.partition("://")
    if separator:
        if prefix not in PREFIXES:
            raise ConfigError(f"{text!r}: {prefix}:// is no hub; write owner/name, hf://owner/name or "
                              "openmind://owner/name")
        repo_id, _, revision = rest.partition("@")
        if not (is_owner_and_name(repo_id) or re.fullmatch(PART, repo_id)):
            raise ConfigError(f"{text!r} names no repository: write {prefix}://owner/name")
        return RepoName(repo_id, PREFIXES[prefix], check_revision(revision) if revision else None)
    return RepoName(text) if is_owner_and_name(text) else None


def is_repo_name(name):
    """Whether `name` looks like a repository of a hub; a path that exists is the caller's to prefer."""
    return parse(name) is not None


def check_revision(revision):
    """Return `revision` (branch, tag or commit), "main" for None.

    Raises:
        ConfigError: no name git would take; it would lead out of the cache.
    """
    if revision is None:
        return "main"
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision or \
            any(part.startswith(".") for part in revision.split("/")):
        raise ConfigError(f"revision {revision!r} must be a branch, a tag or a commit")
    return revision


def choose_hub(wanted=None, among=None):
    """Return the name of the hub to use: "huggingface" or "openmind".

    Args:
        wanted (str | None): what the name's prefix says. Next come MF_HUB, then the only one of `among`, then what is
            installed, Hugging Face first. Default: None.
        among (Iterable[str] | None): hubs that hold what is looked for. Default: None, both.

    Raises:
        ConfigError: MF_HUB is no hub, or `among` lacks it.
        ImportError: its client library is not installed; the message has the command.
    """
    among = [check_hub(name, "section hub") for name in among or PACKAGES]
    wanted = wanted or (check_hub(get_env("MF_HUB"), "MF_HUB") if get_env("MF_HUB") else None)
    if wanted is not None:
        if wanted not in among:
            raise ConfigError(f"the hub is {wanted}, but only {' and '.join(among)} is named here; unset MF_HUB, or "
                              "name a repository there")
        if not is_installed(wanted):
            raise ImportError(f"the {wanted} hub needs its client: pip install {PACKAGES[wanted]}")
        return wanted
    found = next((hub for hub in PACKAGES if hub in among and is_installed(hub)), None)
    if found is None:
        packages = [PACKAGES[hub] for hub in PACKAGES if hub in among]
        raise ImportError(f"no client of a hub is installed: pip install {' or pip install '.join(packages)} "
                          "(or give a local folder)")
    return found


def check_hub(name, source="hub"):
    """Return "huggingface" or "openmind" for any spelling of a hub.

    Raises:
        ConfigError: no hub; `source` says in the message who named it.
    """
    text = str(name).lower()
    if text not in PREFIXES:
        raise ConfigError(f"{source}: {name!r} is no hub; use huggingface or openmind."
                          f"{did_you_mean(name, PREFIXES)}")
    return PREFIXES[text]


def is_installed(hub):
    """Whether the client library of `hub` can be imported."""
    return importlib.util.find_spec(PACKAGES[hub]) is not None
