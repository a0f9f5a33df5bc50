"""GenerationMixin: `generate`, `chat` and MindFormers' step methods, for models that keep the protocol of `decode`."""
import contextlib
import copy

import numpy as np

from mindformers.generation import sampling
from mindformers.generation.decode import build_selector, run_steps
from mindformers.generation.generation_config import GenerationConfig, known_names
from mindformers.generation.logits_process import LogitsProcessorList, valid_lengths
from mindformers.generation.parallel_decoding import parallel_decoding_control
from mindformers.generation.utils import GenerateOutput, InferOutput, to_numpy
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean

_CALL_ARGUMENTS = ("input_ids", "generation_config", "logits_processor", "streamer", "seed", "attention_mask",
                   "stopping_criteria", "tokenizer")


def get_valid_length_each_example(input_ids, pad_token_id):
    """Return ``(lengths, longest)``: int [B] tokens per row of `input_ids` [B, L] without padding at both ends."""
    lengths = valid_lengths(to_numpy(input_ids), pad_token_id)
    return lengths, int(lengths.max(initial=0))


class GenerationMode:
    """Names of the strategies of `generate`."""

    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"


class GenerationMixin:
    """Text generation for a model with `config`, `make_cache`, `forward_step` and `next_logits` (see `decode`)."""

    def generate(self, input_ids, generation_config=None, logits_processor=None, streamer=None, seed=None,
                 attention_mask=None, stopping_criteria=None, tokenizer=None, **kwargs):
        """Continue the prompts and return prompt and answer of each row.

        Prompts may differ in length; padding at either end is left out of everything (`prompts.to_prompts` says how it
        is told apart) and a prompt is never padded to the model's seq_length. A row of a batch gives the same answer
        as alone. Interrupted or failing, generation gives its cache back and leaves the model usable.

        Args:
            input_ids (list[int] | list[list[int]] | array | Tensor): token ids [L] or [B, L]; lists may be ragged.
            generation_config (GenerationConfig): settings; None takes ``self.generation_config`` when the model has
                one, else those of the model's config. Left as it is. Default: None.
            logits_processor (callable | list): ``(input_ids int32 [1, L], scores float32 [1, V]) -> scores [1, V]``,
                called per row without padding, after the penalties and before temperature and top-k. Default: None.
            streamer (BaseStreamer): gets the prompt, each token as it is chosen, and the end; not with beams.
            seed (int | list[int]): makes a run repeat; a list has one seed per prompt. Default: None (fresh).
            attention_mask (array [B, L]): 1 = token, 0 = padding. Default: None.
            stopping_criteria (callable | list): ``(input_ids [1, L], scores [1, V]) -> bool``. Default: None.
            tokenizer: needed with `stop_strings`. Default: None.
            kwargs: settings of GenerationConfig that win over `generation_config` for this call.

        Returns:
            list of np.ndarray: int32 [length] per answer (num_return_sequences in a row per prompt), prompt first,
            without padding; or a GenerateOutput with ``return_dict_in_generate=True``.

        Raises:
            ConfigError: an unknown keyword argument; UnsupportedError: a strategy that is not carried.
            TypeError, ValueError: faulty settings or prompts; the message names value and bound.
        """
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise TypeError(f"streamer must have put() and end(), as TextStreamer has, but is {streamer!r}")
        with report_failure(streamer), evaluation_mode(self):
            if not getattr(self, "can_generate", lambda: True)():
                raise UnsupportedError(f"{type(self).__name__} has no next-token head to generate with; load the "
                                       f"weights with AutoModelForCausalLM")
            config, asked = resolve_config(self, generation_config, kwargs)
            if streamer is not None and config.num_beams > 1:
                raise ValueError("`streamer` cannot be used with beam search (num_beams > 1): the text is only known "
                                 "at the end; use num_beams=1")
            selector = build_selector(self.config, input_ids, config, attention_mask=attention_mask,
                                      processors=logits_processor, stopping_criteria=stopping_criteria,
                                      tokenizer=tokenizer, seed=sampling_seed(seed), length_asked=asked)
            return self._collect(selector, streamer)

    def _collect(self, selector, streamer):
        """Run the steps, feed the streamer, and return what `generate` returns."""
        config, table = selector.config, selector.table
        keep = config.return_dict_in_generate
        scores, logits = [], []
        if streamer is not None:
            prompts = [table.history(row).tolist() for row in range(len(table))]
            streamer.put(np.array(prompts[0], np.int32) if len(prompts) == 1 else prompts)
        with contextlib.closing(run_steps(self, selector)) as steps:
            for step in steps:
                if keep and config.output_scores:
                    scores.append(np.array(step.scores))
                if keep and config.output_logits:
                    logits.append(np.array(step.logits))
                if streamer is not None:
                    streamer.put(int(step.tokens[0]) if len(table) == 1 else step.tokens.tolist())
        if streamer is not None:
            streamer.end()
        sequences, reasons, beam_scores, paths = selector.results()
        if not keep:
            return sequences
        return GenerateOutput(sequences, tuple(scores) if config.output_scores else None,
                              tuple(logits) if config.output_logits else None,
                              beam_scores if config.output_scores else None,
                              paths if config.output_scores else None, reasons)

    def chat(self, tokenizer, query, history=None, system_role_name="system", user_role_name="user",
             assistant_role_name="assistant", instruction="", max_length=512, max_new_tokens=None, min_length=0,
             min_new_tokens=None, do_sample=True, temperature=1.0, top_k=50, top_p=1.0, repetition_penalty=1.0,
             streamer=None, **kwargs):
        """Answer `query` in a conversation, through the tokenizer's chat template.

        Args:
            tokenizer: has `apply_chat_template` (and a template) and `decode`.
            query (str): what the user says.
            history (list[dict]): earlier turns, ``{"role": ..., "content": ...}``; left as it is. Default: None.
            system_role_name, user_role_name, assistant_role_name (str): names of the roles in the template.
            instruction (str): system prompt, put in front when the history has none. Default: "".
            max_length ... repetition_penalty: settings of GenerationConfig.
            streamer, kwargs: passed to `generate`.

        Returns:
            (str, list[dict]): the answer, and a new history that has query and answer at its end.

        Raises:
            TypeError: `query` is no text, `history` no list of dicts.
            ValueError: the tokenizer has no chat template.
        """
        with report_failure(streamer):
            messages = start_messages(query, history, system_role_name, user_role_name, instruction)
            if getattr(tokenizer, "chat_template", None) is None and getattr(tokenizer, "default_chat_template",
                                                                            None) is None:
                raise ValueError(f"{type(tokenizer).__name__} has no chat_template, so chat() cannot lay out the "
                                 f"conversation: set tokenizer.chat_template, or call generate() with a prompt of your "
                                 f"own")
            tokens = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
            tokens = tokens["input_ids"] if hasattr(tokens, "keys") else tokens
            prompt = np.ravel(to_numpy(tokens)).astype(np.int32)
        output = self.generate(prompt, streamer=streamer, attention_mask=np.ones_like(prompt), tokenizer=tokenizer,
                               max_length=max_length, max_new_tokens=max_new_tokens, min_length=min_length,
                               min_new_tokens=min_new_tokens, do_sample=do_sample, temperature=temperature,
                               top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty,
                               **{**kwargs, "return_dict_in_generate": False})
        answer = tokenizer.decode(output[0][len(prompt):].tolist(), skip_special_tokens=True)
        return answer, [*messages, {"role": assistant_role_name, "content": answer}]

    def get_logits_processor(self, generation_config, input_ids_seq_length, logits_processor=None):
        """Return the LogitsProcessorList that `generate` runs for a prompt of `input_ids_seq_length` tokens."""
        config = generation_config
        limit = (input_ids_seq_length + config.max_new_tokens if config.max_new_tokens is not None
                 else config.max_length)
        processors = LogitsProcessorList(sampling.build_rules(config, input_ids_seq_length, limit))
        sampling.merge_custom(processors, logits_processor)
        return processors

    def get_logits_warper(self, generation_config):
        """Return the LogitsProcessorList that shapes the distribution when sampling."""
        return LogitsProcessorList(sampling.build_warpers(generation_config))

    def process_logits(self, logits, current_index=None, keep_all=False):
        """Return float32 logits [rows, V] at the flat positions `current_index`; all positions when there are none."""
        logits = to_numpy(logits).astype(np.float32)
        logits = logits.reshape(-1, logits.shape[-1])
        return logits if current_index is None or keep_all else logits[np.ravel(to_numpy(current_index))]

    def forward(self, input_ids, valid_length_each_example, block_tables=None, slot_mapping=None, prefill=None,
                use_past=False, encoder_mask=None, encoder_output=None, target_mask=None, **model_kwargs):
        """Run right-padded rows without a cache.

        Args:
            input_ids (array): int [B, L], right padded.
            valid_length_each_example (array): int [B], tokens of each row.
            prefill: with no cache every call reads the whole row. Default: None.

        Returns:
            (np.ndarray, np.ndarray): logits float32 [B, V] after each row's last token, and the flat position of that
            token, int [B].

        Raises:
            UnsupportedError: arguments of a cache kept by the caller, or of an encoder.
        """
        refuse_cache_arguments("forward", use_past=use_past or None, block_tables=block_tables,
                               slot_mapping=slot_mapping, encoder_mask=encoder_mask, encoder_output=encoder_output,
                               target_mask=target_mask, **model_kwargs)
        tokens = np.ascontiguousarray(to_numpy(input_ids), np.int32)
        lengths = np.ravel(to_numpy(valid_length_each_example)).astype(np.int32)
        if tokens.ndim != 2 or lengths.shape != (len(tokens),) or (lengths < 1).any() or \
                (lengths > tokens.shape[1]).any():
            raise ValueError(f"forward takes input_ids [B, L] and one length in [1, L] per row, but got shape "
                             f"{list(tokens.shape)} and lengths {lengths.tolist()}")
        positions = np.arange(len(tokens)) * tokens.shape[1] + lengths - 1
        used = np.ascontiguousarray(tokens[:, :lengths.max()])
        return np.asarray(self.next_logits(used, lengths), np.float32), positions

    def infer(self, input_ids, valid_length_each_example, generation_config=None, logits_processor=None,
              logits_warper=None, block_tables=None, slot_mapping=None, prefill=True, is_finished=None,
              encoder_mask=None, encoder_output=None, target_mask=None, **model_kwargs):
        """Do one step without a cache: choose the next token of each row.

        For many steps use `generate`, or `decode_steps` with its own cache.

        Args:
            input_ids, valid_length_each_example: as in `forward`.
            generation_config (GenerationConfig): settings; None as in `generate`. Default: None.
            logits_processor, logits_warper (list): processors; None takes those of the settings. Default: None.
            is_finished (list[bool]): rows that have ended; they get no token. Default: None (none).

        Returns:
            (list[int], list[bool]): token of each row (-1 for ended ones) and which rows have ended now; or an
            InferOutput and the list with ``return_dict_in_generate=True``.
        """
        config, _ = resolve_config(self, generation_config, {})
        logits, positions = self.forward(input_ids, valid_length_each_example, block_tables, slot_mapping, prefill,
                                         encoder_mask=encoder_mask, encoder_output=encoder_output,
                                         target_mask=target_mask, **model_kwargs)
        ended = [False] * len(logits) if is_finished is None else list(is_finished)
        return self.postprocess(input_ids, ended, logits, config, valid_length_each_example, positions,
                                logits_processor, logits_warper, need_gather_logits=False)

    def postprocess(self, input_ids, is_finished, res, generation_config, valid_length_each_example, current_index,
                    logits_processor=None, logits_warper=None, need_gather_logits=True):
        """Choose the next token of each row from the logits `res`; returns what `infer` returns.

        `res` is [B, V], or [B * L, V] (or [B, L, V]) with ``need_gather_logits=True``, which takes the flat positions
        `current_index`. A list `is_finished` is updated in place, as MindFormers does.
        """
        config = generation_config
        logits = self.process_logits(res, current_index, keep_all=not need_gather_logits)
        tokens, lengths = to_numpy(input_ids), np.ravel(to_numpy(valid_length_each_example))
        scores, target = logits.copy(), []
        for row, length in enumerate(lengths):
            if is_finished[row]:
                target.append(-1)
                continue
            rules = self.get_logits_processor(config, int(length)) if logits_processor is None else logits_processor
            warpers = self.get_logits_warper(config) if logits_warper is None else logits_warper
            active = [*rules, *(warpers if config.do_sample else ())]
            scores[row] = sampling.apply_processors(active, tokens[row, :length], logits[row])
            generator = sampling.step_generator(config.seed, row, int(length)) if config.do_sample else None
            target.append(sampling.choose_token(scores[row], generator, row))
            is_finished[row] = target[-1] in config.eos_token_id or bool(length + 1 >= config.max_length)
        if config.return_dict_in_generate:
            return InferOutput(target, scores if config.output_scores else None,
                               logits if config.output_logits else None), is_finished
        return target, is_finished

    def slice_incremental_inputs(self, model_inputs, current_index):
        """Not carried: the cache keeps each row's position."""
        raise not_carried("slice_incremental_inputs")

    def add_flags_custom(self, is_first_iteration):
        """Not carried: prefill and decoding are the same call."""
        raise not_carried("add_flags_custom")

    def update_model_kwargs_before_generate(self, input_ids, model_kwargs):
        """Not carried: the decode loop passes tokens, lengths and a cache only."""
        raise not_carried("update_model_kwargs_before_generate")


def not_carried(name):
    """Return the UnsupportedError for a hook of MindFormers' own loop."""
    return UnsupportedError(f"{name}() is not supported: the decode loop calls model.forward_step(tokens, lengths, "
                            f"cache) for prompts and single tokens alike; override forward_step instead")


def refuse_cache_arguments(name, **arguments):
    """Raise UnsupportedError when one of MindFormers' cache or encoder arguments is given."""
    given = [key for key, value in arguments.items() if value is not None]
    if given:
        raise UnsupportedError(f"{name}() does not take {', '.join(given)}: a cache belongs to model.make_cache(); use "
                               f"generate(), decode_steps(), or model.forward_step(tokens, lengths, cache)")


def resolve_config(model, generation_config, kwargs):
    """Return ``(settings of this call, whether its length was asked for)``; nothing given is changed.

    Order of precedence: `kwargs`, `generation_config` or the model's own, special tokens of the model's config.
    """
    given = generation_config if generation_config is not None else getattr(model, "generation_config", None)
    if given is not None and not isinstance(given, GenerationConfig):
        raise TypeError(f"generation_config must be a GenerationConfig, but is {type(given).__name__}; use "
                        f"GenerationConfig.from_dict for a dict")
    config = copy.deepcopy(given) if given is not None else GenerationConfig.from_model_config(model.config)
    from_model = GenerationConfig.from_model_config(model.config)
    parallel_decoding_control(model.config)
    for name in ("eos_token_id", "bos_token_id", "pad_token_id", "max_length"):
        # a config given for this call keeps its default length; the model's own file may leave it to the model config
        if not config.is_explicit(name) and (name != "max_length" or generation_config is None):
            setattr(config, name, getattr(from_model, name))
    total_given = any(kwargs.get(name) is not None for name in ("max_length", "max_decode_length"))
    if total_given:
        config.max_new_tokens = None  # the call's own max_new_tokens, set below, still wins
    unknown = config.update(**kwargs)
    if config.num_beams > 1 and "do_sample" not in kwargs and generation_config is None:
        config.do_sample = False  # the model's habit of sampling is no wish for random beams
    if unknown:
        name = next(iter(unknown))
        raise ConfigError(f"generate() got an unknown argument {name!r}."
                          f"{did_you_mean(name, [*known_names(), *_CALL_ARGUMENTS])}")
    asked = total_given or kwargs.get("max_new_tokens") is not None or generation_config is not None
    return config, asked


def sampling_seed(seed):
    """Check the `seed` argument and return it."""
    return None if seed is None else GenerationConfig(seed=seed.tolist() if hasattr(seed, "tolist") else seed).seed


def start_messages(query, history, system_role, user_role, instruction):
    """Return the turns of a conversation up to and with `query`, as a new list."""
    if not isinstance(query, str):
        raise TypeError(f"query must be a string, but is {type(query).__name__}")
    turns = [] if history is None else list(history)
    for turn in turns:
        if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
            raise TypeError(f"history must be a list of dicts with role and content, but has {turn!r}")
    if instruction and not any(turn["role"] == system_role for turn in turns):
        turns.insert(0, {"role": system_role, "content": instruction})
    return [*turns, {"role": user_role, "content": query}]


@contextlib.contextmanager
def report_failure(streamer):
    """Tell the streamer of an exception, so that its reader does not wait for ever; the exception goes on."""
    try:
        yield
    except BaseException as error:
        if streamer is not None:
            getattr(streamer, "fail", lambda _: streamer.end())(error)
        raise


@contextlib.contextmanager
def evaluation_mode(model):
    """Leave training mode for the time of a generation."""
    training = getattr(model, "training", False) is True and hasattr(model, "set_train")
    if training:
        model.set_train(False)
    try:
        yield
    finally:
        if training:
            model.set_train(True)
