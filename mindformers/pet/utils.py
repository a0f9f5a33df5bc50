"""Matching of cell names."""
import re


def re_match_list(mstr, patterns=None):
    """Whether any of `patterns` (a regular expression or a list of them) matches the start of `mstr`."""
    patterns = [patterns] if isinstance(patterns, str) else patterns or ()
    return any(re.match(pattern, mstr) for pattern in patterns)
