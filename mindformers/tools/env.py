"""The only reader of ``os.environ``: every variable the suite looks at is listed in `VARIABLES`."""
import contextlib
import os

from mindformers.tools.errors import ConfigError

# name -> (default, meaning); docs/reference/environment.md is checked against this table
VARIABLES = {
    "MF_KERNELS": ("", "force a kernel form: portable or fused; empty chooses by what can run"),
    "MF_LOG_LEVEL": ("INFO", "level of the console log: DEBUG, INFO, WARNING, ERROR"),
    "LOG_MF_PATH": ("", "folder of the log files; empty writes none until a job sets its output folder"),
    "LOCAL_DEFAULT_PATH": ("./output", "root of everything a job writes"),
    "REGISTER_PATH": ("", "folder of your own modules, as --register_path; see research/README.md"),
    "CHECKPOINT_DOWNLOAD_FOLDER": ("./checkpoint_download", "where named checkpoints are kept"),
    "CHECKPOINT_SAVE_FOLDER": ("./checkpoint_save", "default folder of save_pretrained"),
    "RANK_ID": ("0", "rank of this process"),
    "RANK_SIZE": ("1", "number of processes"),
    "DEVICE_ID": ("0", "device of this process"),
    "MS_ROLE": ("", "set by msrun: MS_WORKER or MS_SCHED"),
    "MS_WORKER_NUM": ("1", "set by msrun: number of workers"),
    "MS_NODE_ID": ("", "set by msrun: rank of this worker"),
    "STDOUT_DEVICES": ("", "ranks that log to the console, such as 0,7; empty means all"),
    "MF_NUM_THREADS": ("", "threads of the kernels; empty takes the cores allowed to the process"),
    "MF_ISA": ("", "force the instruction set of the native kernels: portable, avx2, avx512, avx512_bf16"),
    "MS_OP_PLUGIN_PATH": ("", "MindSpore's library of extra kernels; set to ours unless it is set already"),
    "CXX": ("", "C++ compiler that builds the native kernels; empty looks for g++, then clang++"),
    "OMP_WAIT_POLICY": ("passive", "how MindSpore's OpenMP threads wait; passive unless it is set already"),
    "HF_HUB_OFFLINE": ("", "1 forbids network access of the Hugging Face hub"),
    "TRANSFORMERS_OFFLINE": ("", "1 means the same as HF_HUB_OFFLINE=1"),
    "HF_ENDPOINT": ("", "address of a mirror of the Hugging Face hub; empty takes https://huggingface.co"),
    "MF_HUB": ("", "hub of names without a prefix: huggingface or openmind; empty takes the one installed"),
    "MF_HUB_OFFLINE": ("", "1 forbids network access of every hub"),
}


def get_env(name):
    """Return the value of variable `name` as a string, or its documented default.

    Raises:
        KeyError: `name` is not in `VARIABLES` (a variable must be listed before it is read).
    """
    default, _ = VARIABLES[name]
    return os.environ.get(name, default)


def get_env_int(name):
    """Like `get_env`, as an int; a value that is no int raises ConfigError naming variable and value."""
    value = get_env(name)
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"environment variable {name}={value!r} must be an integer") from None


def is_on(name):
    """Whether variable `name` is set to 1, on, yes or true, in any case."""
    return get_env(name).strip().lower() in ("1", "on", "yes", "true")


@contextlib.contextmanager
def environment(values):
    """Context manager: variables of `values` (name -> text, any name) are set meanwhile and put back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def set_env(name, value, overwrite=True):
    """Set a variable for this process and its children; returns the value in force."""
    if overwrite:
        os.environ[name] = str(value)
    return os.environ.setdefault(name, str(value))


def let_openmp_threads_sleep():
    """Make idle OpenMP threads sleep instead of spin, unless the user chose; read by the library when it is loaded.

    Spinning threads of two processes on one machine take each other's cores: a training step beside other work was
    measured 5.6 times faster with sleeping ones (docs/performance.md).
    """
    set_env("OMP_WAIT_POLICY", "passive", overwrite=False)
