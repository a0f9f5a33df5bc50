"""Segments of mixed Chinese and English text, and how well two texts agree."""
import re

PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』")
_WORDS = re.compile(r"'(?:s|m|d|re|ve|ll|t)\b|\w+|[^\w\s]")
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")


def remove_punctuation(in_str):
    """Lower case without surrounding space and without Chinese and symbol punctuation."""
    return "".join(char for char in str(in_str).lower().strip() if char not in PUNCTUATION)


def mixed_segmentation(in_str, rm_punc=False):
    """Split text in segments: one Chinese character, one English word, clitic ('s) or punctuation mark.

    Args:
        in_str (str): the text; compared in lower case.
        rm_punc (bool): leave out Chinese and symbol punctuation first. Default: False.
    """
    segments, word = [], ""
    for char in str(in_str).lower().strip():
        if rm_punc and char in PUNCTUATION:
            continue
        if _CHINESE.match(char) or char in PUNCTUATION:
            segments += _WORDS.findall(word) + [char]
            word = ""
        else:
            word += char
    return segments + _WORDS.findall(word)


def find_lcs(s1, s2):
    """Return (the longest run common to two sequences, its length)."""
    before, best, end = [0] * (len(s2) + 1), 0, 0
    for i, item in enumerate(s1):
        row = [0] * (len(s2) + 1)
        for j, other in enumerate(s2):
            if item == other:
                row[j + 1] = before[j] + 1
                if row[j + 1] > best:
                    best, end = row[j + 1], i + 1
        before = row
    return s1[end - best:end], best


def evaluate_pair(prediction, answer):
    """Return (F1, exact match) of a predicted and a true answer, each in [0, 1]."""
    predicted, true = mixed_segmentation(prediction, rm_punc=True), mixed_segmentation(answer, rm_punc=True)
    _, common = find_lcs(true, predicted)
    f1 = 0.0
    if common:
        precision, recall = common / len(predicted), common / len(true)
        f1 = 2 * precision * recall / (precision + recall)
    return f1, float(remove_punctuation(prediction) == remove_punctuation(answer))
