"""The version of the suite, what it needs of its environment, and what is there."""
from mindformers.tools.errors import ConfigError
from mindformers.tools.utils import version_key

__version__ = "0.1.0"

# package -> (least version, first version that is too new); tested with what lies between
TESTED = {
    "mindspore": ("2.10", "2.11"),
    "numpy": ("1.26", "2"),
    "safetensors": ("0.4.5", "0.6"),
    "tokenizers": ("0.20", "0.24"),
    "sentencepiece": ("0.2", "0.3"),
    "jinja2": ("3.1", "4"),
    "pyyaml": ("6.0", "7"),
    "tqdm": ("4.65", "5"),
    "rich": ("13", "16"),
}
WHY = {
    "numpy": "MindSpore's bfloat16 conversion fails with numpy 2",
    "safetensors": "0.8.0 writes wrong values for arrays that are not contiguous",
}


def installed_version(package):
    """Return the installed version of a package, or None."""
    from importlib import metadata  # slow to import, and `import mindformers` reads this file
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def version_faults():
    """Return a list of messages about packages that are missing or outside the tested range."""
    faults = []
    for package, (low, high) in TESTED.items():
        version = installed_version(package)
        if version is None:
            faults.append(f"{package} is not installed; needed: >={low},<{high}")
        elif not version_key(low) <= version_key(version) < version_key(high):
            why = f" ({WHY[package]})" if package in WHY else ""
            faults.append(f"{package} {version} is outside the tested range >={low},<{high}{why}")
    return faults


def require_versions():
    """Raise ConfigError when a package is missing or outside the tested range."""
    faults = version_faults()
    if faults:
        raise ConfigError("; ".join(faults))


def is_version_python(cur_ver, tar_ver):
    """Whether version `cur_ver` is at least `tar_ver`, number by number."""
    return version_key(cur_ver) >= version_key(tar_ver)
