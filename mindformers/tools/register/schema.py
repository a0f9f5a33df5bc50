"""The door of the schema: one call checks a whole configuration and fills in its defaults."""
import copy
from typing import NamedTuple

from mindformers.tools.register import rules, sections
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.schema_engine import Report, check_section


class CheckedConfig(NamedTuple):
    """Result of `check_config`.

    Attributes:
        config (MindFormerConfig): a copy with defaults filled in and relative paths found.
        ignored (list[tuple[str, str]]): keys without effect here, each with the reason.
    """

    config: MindFormerConfig
    ignored: list


def check_config(config, source="config", complete=True):
    """Check a whole configuration against the tables and rules, and fill in the defaults.

    Nothing heavy is imported: component classes are looked up by name, their parameters read from their source.

    Args:
        config (MindFormerConfig | dict): as loaded, with command line overrides merged; it is left as it was.
        source (str): what messages call it when a key has no line (the YAML's path, "TrainingArguments", ...).
        complete (bool): the sections that its run_mode needs must be there. Default: True; False is for objects given
            beside the configuration.

    Returns:
        CheckedConfig: the completed copy, and the ignored keys with reasons.

    Raises:
        ConfigError: every fault found, with line and nearest key, in one message.
    """
    if not isinstance(config, MindFormerConfig):
        config = MindFormerConfig(**config)
    config = copy.deepcopy(config)
    context = config.get("context")
    device = context.get("device_target") if isinstance(context, dict) else None
    report = Report(config, source, device if isinstance(device, str) else sections.DEFAULT_DEVICE,
                    sections.unused_sections(config))
    check_section(report, config, sections.ROOT, ())
    rules.apply(report, complete)
    report.raise_faults()
    return CheckedConfig(config, sorted(report.ignored.items()))
