"""Keeps what people write in a chat from becoming control tokens: marks it before rendering, unmarks it after.

A template writes its control tokens and the messages into one text, which is then split at control tokens. A control
token's text inside a message gets a mark behind its first character, so that the split does not find it.
"""
import secrets

# random and between noncharacters, so that no message can hold it
_MARK = f"\ufdd1{secrets.token_hex(8)}\ufdd1"


def guard(value, pattern):
    """Return `value` (str, or lists and dicts of them) with every match of `pattern` marked; keys are left alone."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match.group()[0] + _MARK + match.group()[1:], value)
    if isinstance(value, dict):
        return {key: guard(held, pattern) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [guard(held, pattern) for held in value]
    return value


def unguard(text):
    """Return `text` without marks."""
    return text.replace(_MARK, "")
