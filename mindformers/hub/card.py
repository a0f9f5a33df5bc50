"""Model cards: the README.md of a repository, whose head tells a hub the license, the base model and the task."""
import re

import yaml

LIBRARY = "mindformers"
_HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)


def model_card(repo_id, base_model=None, license=None, pipeline_tag=None, tags=(), what=None, base_page=None):
    """Return the text of a card.

    Args:
        repo_id (str): "owner/name".
        base_model (str | None): repository that the weights come from. Default: None.
        license (str | None): of the base model, such as "apache-2.0". Default: None, left for the owner to state.
        pipeline_tag (str | None): task, such as "text-generation". Default: None.
        tags (Iterable[str]): more words to be found by. Default: ().
        what (str | None): class of what is saved, such as "LlamaForCausalLM". Default: None.
        base_page (str | None): web page of the base model. Default: None.
    """
    head = {"license": license, "base_model": base_model, "library_name": LIBRARY, "pipeline_tag": pipeline_tag,
            "tags": list(dict.fromkeys([LIBRARY, "mindspore", *tags]))}
    head = yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=False, allow_unicode=True)
    about = f"`{what}` saved by MindFormers" if what else "Saved by MindFormers"
    if base_model:
        about += f", from [{base_model}]({base_page})" if base_page else f", from {base_model}"
    about += "."
    terms = f"License: {license}, that of the base model." if license else \
        "License: not stated; the owner of this repository adds it to the head of this file."
    auto = {"text-generation": "AutoModelForCausalLM", "text-classification": "AutoModelForSequenceClassification",
            "feature-extraction": "AutoModel"}.get(pipeline_tag)
    use = "" if auto is None else (
        f"\n## Use\n\n```python\nfrom mindformers import AutoTokenizer, {auto}\n\n"
        f'model = {auto}.from_pretrained("{repo_id}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo_id}")\n```\n')
    return f"---\n{head}---\n\n# {repo_id.split('/')[-1]}\n\n{about} {terms}\n{use}"


def license_in(text):
    """Return the license that the head of a card states, None without one."""
    match = _HEAD.match(text)
    content = yaml.safe_load(match.group(1)) if match else None
    found = content.get("license") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def add_tags(text, tags):
    """Return a card with `tags` among those of its head; everything else stays as its author wrote it."""
    match = _HEAD.match(text)
    content = yaml.safe_load(match.group(1)) if match else None
    held = content.get("tags") if isinstance(content, dict) else None
    held = [held] if isinstance(held, str) else list(held or ())
    new = [tag for tag in dict.fromkeys(tags) if tag not in held]
    if not new:
        return text
    lines = "".join(f"- {yaml.safe_dump(tag, allow_unicode=True).splitlines()[0]}\n" for tag in new)
    if match is None:
        return f"---\ntags:\n{lines}---\n{text}"
    head, start = match.group(1), match.start(1)
    if not held:
        head = re.sub(r"^tags:.*\n(?=\S|\Z)", "", head, flags=re.MULTILINE) + f"tags:\n{lines}"
    else:
        block = re.search(r"^tags:[ \t]*\n((?:[ \t]*-.*\n)+)", head, re.MULTILINE)
        if block is not None:
            indent = re.match(r"[ \t]*", block.group(1)).group()
            head = head[:block.end()] + "".join(indent + line for line in lines.splitlines(True)) + head[block.end():]
        else:  # in one line: tags: [a, b]
            flow = yaml.safe_dump({"tags": held + new}, sort_keys=False, allow_unicode=True)
            head = re.sub(r"^tags:.*\n", lambda _: flow, head, count=1, flags=re.MULTILINE)
    return text[:start] + head + text[match.end(1):]
