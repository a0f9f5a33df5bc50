"""What all tests share: the order of their files, and garbage collection that skips what lives as long as the run."""
import gc

# Files that take long come first, so that no worker is left with one of them when the others have finished. Measured;
# a file that is missing here only costs time.
LONGEST = ("kernels/test_build.py", "models/test_gradient_checkpointing.py", "contracts/test_readme.py",
           "distributed/test_msrun.py", "trainer/test_lora_run.py", "pet/test_lora.py",
           "models/test_glm_consistency.py", "kernels/test_plugin_general_ops.py", "models/test_model_surgery.py", "wrapper/test_data_parallel.py",
           "trainer/test_kept_settings.py", "trainer/test_hooks.py", "kernels/test_native_model.py",
           "trainer/test_interrupt.py", "trainer/test_glm_training.py", "trainer/test_resume.py")


def pytest_configure(config):
    """pytest-xdist would start with the files of many tests, which are not those that take long."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Order the files: those of LONGEST, then the rest as they were; tests of a file stay in their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get("/".join(item.path.parts[-2:]), len(ranks)))


def pytest_collection_finish():
    """MindSpore collects garbage at each compilation: spare it all modules and tests, which stay."""
    gc.collect()
    gc.freeze()
