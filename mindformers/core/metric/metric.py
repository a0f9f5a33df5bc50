"""Metrics in numpy: they read what an evaluation step returned, batch by batch."""
import math

import numpy as np
from mindspore.train.metrics import Metric

from mindformers.core.metric.text import evaluate_pair, find_lcs, mixed_segmentation, remove_punctuation
from mindformers.tools.errors import UnsupportedError


def to_numpy(value):
    """A tensor, list or array as numpy array."""
    return value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)


def shifted_token_losses(logits, tokens, mask):
    """Loss of each next token.

    Args:
        logits: [B, T, V]; position t predicts token t + 1. tokens: int [B, T]. mask: [B, T].

    Returns:
        (losses [B, T-1] float64, mask [B, T-1] float64).
    """
    logits = to_numpy(logits).astype(np.float64)[:, :-1]
    labels, mask = to_numpy(tokens)[:, 1:], to_numpy(mask)[:, 1:].astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
    picked = np.take_along_axis(logits, np.where(mask > 0, labels, 0)[..., None].astype(np.int64), -1)[..., 0]
    return log_total - picked, mask


class PerplexityMetric(Metric):
    """Loss per token over the whole evaluation set and its exponential, whatever the sizes of the batches.

    `update` takes one of: a mean loss (each batch counts the same); a sum of token losses and a number of tokens;
    logits [B, T, V], tokens [B, T] and mask [B, T] (a token is predicted from the position before it).

    `eval` returns ``{"loss": float, "PPL": float}``.
    """

    def __init__(self):
        super().__init__()
        self.clear()

    def clear(self):
        """Forget all batches."""
        self._total, self._tokens = 0.0, 0.0

    def update(self, *inputs):
        """Add one batch.

        Raises:
            ValueError: not one, two or three inputs.
        """
        if len(inputs) == 3:
            losses, mask = shifted_token_losses(*inputs)
            inputs = (losses * mask).sum(), mask.sum()
        if len(inputs) not in (1, 2):
            raise ValueError("PerplexityMetric takes (mean loss), (loss sum, tokens) or (logits, tokens, mask), but "
                             f"got {len(inputs)} inputs")
        self._total += float(to_numpy(inputs[0]).mean())
        self._tokens += float(to_numpy(inputs[1]).mean()) if len(inputs) == 2 else 1.0

    def eval(self):
        """Return loss and perplexity.

        Raises:
            RuntimeError: nothing to average.
        """
        if self._tokens <= 0:
            raise RuntimeError("PerplexityMetric has seen no tokens")
        loss = self._total / self._tokens
        return {"loss": loss, "PPL": math.exp(loss) if loss < 700 else math.inf}


class PromptAccMetric(Metric):
    """Accuracy of choosing among prompts: the candidate with the lowest loss per token is the answer.

    `update(logits [C, T, V], input_ids [C, T], input_mask [C, T], labels)`: the C candidates of one example and the
    index of the right one. `eval` returns ``{"Acc": float}``.
    """

    def __init__(self):
        super().__init__()
        self.clear()

    def clear(self):
        """Forget all examples."""
        self.num_data, self.total_acc_num = 0, 0

    def update(self, *inputs):
        """Add one example.

        Raises:
            ValueError: not four inputs.
        """
        if len(inputs) != 4:
            raise ValueError("PromptAccMetric takes (logits, input_ids, input_mask, labels), but got "
                             f"{len(inputs)} inputs")
        losses, mask = shifted_token_losses(*inputs[:3])
        per_candidate = (losses * mask).sum(-1) / np.maximum(mask.sum(-1), 1e-9)
        self.total_acc_num += int(per_candidate.argmin() == int(to_numpy(inputs[3]).reshape(-1)[0]))
        self.num_data += 1

    def eval(self):
        """Return the accuracy.

        Raises:
            RuntimeError: no example was added.
        """
        if not self.num_data:
            raise RuntimeError("PromptAccMetric has seen no examples")
        return {"Acc": self.total_acc_num / self.num_data}


class EmF1Metric(Metric):
    """Exact match and F1 of answers in mixed Chinese and English, in percent.

    F1 is that of the longest common run of segments (CMRC 2018); a segment is a Chinese character or an English word.
    `update(predictions, labels)` takes two lists of strings; `eval` returns ``{"F1": float, "Em": float}``.
    """

    mixed_segmentation = staticmethod(mixed_segmentation)
    remove_punctuation = staticmethod(remove_punctuation)
    find_lcs = staticmethod(find_lcs)

    def __init__(self):
        super().__init__()
        self.clear()

    def clear(self):
        """Forget all pairs."""
        self.num_data, self._f1, self._em = 0, 0.0, 0.0

    def update(self, *inputs):
        """Add predictions and labels.

        Raises:
            ValueError: not two inputs, or of different lengths.
        """
        if len(inputs) != 2:
            raise ValueError(f"EmF1Metric takes (predictions, labels), but got {len(inputs)} inputs")
        predictions, labels = ([item] if isinstance(item, str) else list(item) for item in inputs)
        if len(predictions) != len(labels):
            raise ValueError(f"{len(predictions)} predictions, but {len(labels)} labels")
        for prediction, label in zip(predictions, labels):
            f1, exact = self.evaluate_pairs(prediction, label)
            self._f1, self._em = self._f1 + f1, self._em + exact
            self.num_data += 1

    def eval(self):
        """Return the means in percent.

        Raises:
            RuntimeError: no pair was added.
        """
        if not self.num_data:
            raise RuntimeError("EmF1Metric has seen no answers")
        return {"F1": 100.0 * self._f1 / self.num_data, "Em": 100.0 * self._em / self.num_data}

    @staticmethod
    def calc_f1_score(answers, prediction):
        """F1 of `prediction` against the best of `answers`, in [0, 1]."""
        return max(evaluate_pair(prediction, answer)[0] for answer in answers)

    @staticmethod
    def calc_em_score(answers, prediction):
        """1 when `prediction` equals one of `answers` without punctuation and case, else 0."""
        return max(evaluate_pair(prediction, answer)[1] for answer in answers)

    @staticmethod
    def evaluate_pairs(pred_, ans_):
        """Return (F1, exact match) of one prediction, each in [0, 1]."""
        return evaluate_pair(pred_, ans_)


CLUENER_TYPES = ("address", "book", "company", "game", "government", "movie", "name", "organization", "position",
                 "scene")


class EntityScore(Metric):
    """Precision, recall and F1 of named entities in BIOS labels (B- begins, I- continues, S- is a single token, O).

    `update(logits [B, T, C] or ids [B, T], label_ids [B, T])`; `eval` returns
    ``({"precision", "recall", "f1"}, {type: {...}})``, rounded to four digits.

    Args:
        id2label (dict[int, str]): Default: None, CLUENER: O, then B-, I-, S- of its ten types.
    """

    def __init__(self, id2label=None):
        super().__init__()
        names = ["O"] + [f"{part}-{kind}" for part in "BIS" for kind in CLUENER_TYPES]
        self.id2label = dict(enumerate(names)) if id2label is None else id2label
        self.clear()

    def clear(self):
        """Forget all entities."""
        self.origins, self.founds, self.rights = [], [], []

    def update(self, *inputs):
        """Add one batch.

        Raises:
            ValueError: not two inputs.
        """
        if len(inputs) != 2:
            raise ValueError(f"EntityScore takes (logits, labels), but got {len(inputs)} inputs")
        predicted, labels = (to_numpy(item) for item in inputs)
        predicted = predicted.argmax(-1) if predicted.ndim == labels.ndim + 1 else predicted
        for found_row, origin_row in zip(predicted, labels):
            known = [i for i, label in enumerate(origin_row) if int(label) in self.id2label]
            origin = self.get_entities_bios([self.id2label[int(origin_row[i])] for i in known])
            found = self.get_entities_bios([self.id2label[int(found_row[i])] for i in known])
            self.origins += origin
            self.founds += found
            self.rights += [entity for entity in found if entity in origin]

    def eval(self):
        """Return the scores of all entities and of each type."""
        by_type = {}
        for kind in sorted({entity[0] for entity in self.origins}):
            counts = [sum(entity[0] == kind for entity in entities)
                      for entities in (self.origins, self.founds, self.rights)]
            by_type[kind] = self._scores(*counts)
        return self._scores(len(self.origins), len(self.founds), len(self.rights)), by_type

    def _scores(self, *counts):
        recall, precision, f1 = self.compute(*counts)
        return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}

    @staticmethod
    def compute(origin, found, right):
        """Return (recall, precision, F1) of the numbers of true, found and rightly found entities."""
        recall = right / origin if origin else 0.0
        precision = right / found if found else 0.0
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        return recall, precision, f1

    @staticmethod
    def get_entities_bios(seq):
        """Return the entities of a row of labels as [type, first, last]."""
        entities, open_entity = [], None
        for i, label in enumerate([*seq, "O"]):
            part, _, kind = label.partition("-")
            if open_entity and part == "I" and kind == open_entity[0]:
                open_entity[2] = i
                continue
            if open_entity:
                entities.append(open_entity)
            open_entity = [kind, i, i] if part == "B" else None
            if part == "S":
                entities.append([kind, i, i])
        return entities


class ADGENMetric:
    """Refused by name: it needs jieba, rouge_chinese and nltk."""

    def __new__(cls, *args, **kwargs):
        raise UnsupportedError("ADGENMetric (rouge and bleu of Chinese text) is not carried; use EmF1Metric, or write "
                               "the predictions and score them with rouge_chinese")


class SQuADMetric:
    """Refused by name: extractive question answering models are not carried."""

    def __new__(cls, *args, **kwargs):
        raise UnsupportedError("SQuADMetric (extractive question answering) is not carried; EmF1Metric scores "
                               "generated answers")
