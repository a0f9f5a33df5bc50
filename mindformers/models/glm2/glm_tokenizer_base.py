"""What the tokenizers of ChatGLM2, ChatGLM3 and GLM-4 share: prefix, position ids, left padding, safe chat encoding."""
import re

from mindformers.models.chat_guard import guard, unguard
from mindformers.models.tokenization_files import SLOW_FILE, save_vocabulary_file
from mindformers.models.tokenization_options import check_kwargs
from mindformers.models.tokenization_utils import PreTrainedTokenizer

ROLES = ("system", "user", "assistant", "observation")


class GLMTokenizer(PreTrainedTokenizer):
    """Base of the GLM tokenizers.

    Every text starts with the prefix ``[gMASK] sop`` (`build_inputs_with_special_tokens`), rows are padded on the left,
    and a call returns "position_ids" (0, 1, ... of the real tokens, 0 at padding) beside ids and mask.

    A subclass gives `control_tokens`, `plain_ids` and `vocabulary_bytes`.
    """

    vocab_files_names = {"vocab_file": SLOW_FILE}
    FILE_LIST = [SLOW_FILE, "tokenizer_config.json"]
    model_input_names = ["input_ids", "attention_mask", "position_ids"]
    padding_side = "left"
    prefix = ("[gMASK]", "sop")

    # what a subclass gives ------------------------------------------------------------------------------------------

    @property
    def control_tokens(self):
        """``{text: id}`` of the tokens that steer the model."""
        raise TypeError(f"{type(self).__name__} must define control_tokens")

    def plain_ids(self, text):
        """Return the ids of a text in which nothing is a control token."""
        raise TypeError(f"{type(self).__name__} must define plain_ids(text)")

    def vocabulary_bytes(self):
        """Return the content of tokenizer.model out of memory, bytes."""
        raise TypeError(f"{type(self).__name__} must define vocabulary_bytes()")

    # prefix and ids -------------------------------------------------------------------------------------------------

    def get_command(self, token):
        """Return the id of a control token such as "[gMASK]" or "<|user|>".

        Raises:
            ValueError: no control token of this tokenizer.
        """
        if token not in self.control_tokens:
            raise ValueError(f"{token!r} is not a special token of {type(self).__name__}; it has "
                             f"{', '.join(self.control_tokens)}")
        return self.control_tokens[token]

    def get_prefix_tokens(self):
        """Return the ids every text starts with: those of ``[gMASK]`` and ``sop``."""
        return [self.get_command(token) for token in self.prefix]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Return ``[gMASK] sop text``, and for a pair ``[gMASK] sop text pair </s>``."""
        ids = self.get_prefix_tokens() + list(token_ids_0)
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.eos_token_id]

    def _text_ids(self, text, options):
        words = text if options.is_split_into_words else [text]
        return [index for word in words for piece, is_added in self._split_added(word, options.split_special_tokens)
                for index in ([self.convert_tokens_to_ids(piece)] if is_added else self.plain_ids(piece))]

    def _prepare_row(self, ids, pair_ids, options):
        row = super()._prepare_row(ids, pair_ids, options)
        if "position_ids" in self.model_input_names:
            row["position_ids"] = list(range(len(row["input_ids"])))
        return row

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write tokenizer.model into a folder; returns its path in a tuple.

        Raises:
            NotADirectoryError: no such folder.
        """
        return save_vocabulary_file(self.vocab_file, self.vocabulary_bytes, save_directory, filename_prefix)

    # chat templates -------------------------------------------------------------------------------------------------

    def _control_pattern(self):
        longest_first = sorted({*self.control_tokens, *self.all_special_tokens}, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(control_regex, longest_first))})")

    def _guard_messages(self, messages):
        return guard(messages, self._control_pattern())

    def _encode_chat(self, texts, **options):
        """Encode rendered conversations: control tokens of the template only, everything else is plain text."""
        check_kwargs(options, ("padding", "truncation", "max_length", "add_special_tokens", "return_tensors", "stride",
                               "pad_to_multiple_of", "padding_side", "return_attention_mask", "verbose"),
                     "apply_chat_template(tokenizer_kwargs)")
        pattern, single = self._control_pattern(), isinstance(texts, str)
        rows = []
        for text in [texts] if single else texts:
            ids = []
            for index, piece in enumerate(pattern.split(text)):
                ids += [self.convert_tokens_to_ids(piece)] if index % 2 else self.plain_ids(unguard(piece))
            rows.append(ids)
        return self._encode_ids(rows, single, **options)

    def _encode_ids(self, rows, single, **options):
        """Return the BatchEncoding of rows of ids; options as of `__call__`."""
        options = self._options(**options)
        self._check_truncation(options, pair=False)
        prepared = [self._prepare_row(ids, None, options) for ids in rows]
        batch = {key: [row[key] for row in prepared] for key in prepared[0]}
        return self._finish(batch, None, single, options)


def control_regex(token):
    """Return the regular expression that finds a control token in a text.

    The bare words "sop" and "eop" count only behind a mask token: they are part of ordinary words, too.
    """
    return rf"(?<=MASK\]){token}" if token.isalpha() else re.escape(token)


def check_turn(turn):
    """Raise TypeError when `turn` is no message of a conversation with roles: its content a text, its tools dicts."""
    if not isinstance(turn, dict) or "role" not in turn or not {"content", "tools"} & set(turn):
        raise TypeError(f"history must be a list of dicts with role and content, but has {turn!r:.120}")
    content, tools = turn.get("content"), turn.get("tools")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content of a {turn['role']} message must be a string, but is {content!r:.120}; join the "
                        "texts of its parts")
    if tools is not None and not (isinstance(tools, (list, tuple)) and all(isinstance(tool, dict) for tool in tools)):
        raise TypeError(f"tools of a {turn['role']} message must be a list of JSON schemas (dicts), but is "
                        f"{tools!r:.120}")


class ChatInputs:
    """`build_single_message`, `build_chat_input` and `build_batch_input` of a tokenizer whose chats have roles."""

    def build_single_message(self, role, metadata, message, tokenize=True):
        """Return ``<|role|>metadata\\nmessage`` as ids, or as text with ``tokenize=False``.

        Only the role becomes a control token: text such as "<|user|>" in `message` or `metadata` stays text.

        Raises:
            ValueError: a role other than system, user, assistant, observation.
        """
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, but got {role!r}")
        metadata, message = metadata or "", message or ""
        if not tokenize:
            return f"<|{role}|>{metadata}\n{message}"
        return [self.get_command(f"<|{role}|>"), *self.plain_ids(f"{metadata}\n"), *self.plain_ids(message)]

    def history_messages(self, item):
        """Return the messages ``[(role, metadata, text)]`` that one entry of a history stands for."""
        raise TypeError(f"{type(self).__name__} must define history_messages(item)")

    def _chat_ids(self, query, history, role):
        entries = [*(history or []), {"role": role, "content": query}]
        for item in entries:
            check_turn(item)
        ids = [index for item in entries for message in self.history_messages(item)
               for index in self.build_single_message(*message)]
        return [*ids, self.get_command("<|assistant|>")]

    def build_chat_input(self, query, history=None, role="user", return_tensors="np"):
        """Return a conversation encoded, ready for the assistant's answer.

        Args:
            query (str): the last message.
            history (list[dict] | None): earlier ones: "role", "content", and where they have them "metadata" (name of
                a tool that is called) and "tools" (of a system message). Default: None.
            role (str): who says the query; "observation" for the result of a tool. Default: "user".
            return_tensors (str | None): as in `__call__`. Default: "np".

        Returns:
            BatchEncoding: input_ids, attention_mask, position_ids, each [1, T].
        """
        return self._encode_ids([self._chat_ids(query, history, role)], False, return_tensors=return_tensors)

    def build_batch_input(self, queries, histories=None, roles="user", padding=True, return_tensors="np"):
        """Like `build_chat_input` for several conversations, padded on the left to the longest.

        Args:
            queries (list[str] | str): the last messages.
            histories (list[list[dict]] | None): their histories. Default: none.
            roles (str | list[str]): who says them. Default: "user".
            padding, return_tensors: as in `__call__`.

        Raises:
            TypeError: queries that are no list.
            ValueError: lists of different lengths.
        """
        queries = [queries] if isinstance(queries, str) else queries
        if not isinstance(queries, list):
            raise TypeError(f"queries must be a list of texts, but got {type(queries).__name__}")
        roles = [roles] * len(queries) if isinstance(roles, str) else roles
        histories = [[] for _ in queries] if histories is None else histories
        if not len(queries) == len(roles) == len(histories):
            raise ValueError(f"queries, histories and roles must be equally many, but are {len(queries)}, "
                             f"{len(histories)} and {len(roles)}")
        rows = [self._chat_ids(*parts) for parts in zip(queries, histories, roles)]
        return self._encode_ids(rows, False, padding=padding, return_tensors=return_tensors)
