"""Training data becomes the tokens and labels that Hugging Face's tokenizer and chat template produce: equal ids on real instruction
data, and as targets exactly what the template writes for the assistant after its own generation prompt, up to and including the
end token. Every key of a message and the tools of a record reach the template."""

import json

import gguf
import pytest
import transformers

from model_support import run_tool
from text_support import tokenizer_folder
from tiny_llama import save_llama

IGNORED = -100


@pytest.fixture(scope="module")
def tokenizer(model_gguf):
    """SmolLM2's own tokenizer.json with the template and end token of the GGUF. What transformers makes of the GGUF's
    vocabulary splits no digits off, as this model's tokenizer does, and has another end token."""
    fields = gguf.GGUFReader(model_gguf)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_folder("smollm2") / "tokenizer.json"))
    end = fields.get_field("tokenizer.ggml.eos_token_id").contents()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.chat_template = fields.get_field("tokenizer.chat_template").contents()
    return tokenizer


def ours(model, file, form="auto"):
    request = {"model": str(model), "files": [str(file)], "format": form, "max_length": 100_000}
    return json.loads(run_tool("data_tool", request))


def render(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def peer(tokenizer, messages):
    """ids and labels: each assistant turn from after its generation prompt to its end token. The text is tokenized in one
    piece, and a character is supervised if its turn is."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    text = render(tokenizer, messages[: last + 1])
    spans = []
    for i, message in enumerate(messages[: last + 1]):
        if message["role"] == "assistant":
            begin = len(render(tokenizer, messages[:i], add_generation_prompt=True))
            end = text.index(tokenizer.eos_token, begin + len(message["content"])) + len(tokenizer.eos_token)
            spans.append((begin, end))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(begin <= first and stop <= end for begin, end in spans) else IGNORED
        for token, (first, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return {"ids": encoded["input_ids"], "labels": labels}


def same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one["ids"] == other["ids"], one["source"]
        assert one["labels"] == other["labels"], one["source"]


@pytest.mark.parametrize("name", ["identity.json", "alpaca_en_demo.json", "alpaca_zh_demo.json"])
def test_alpaca(model_gguf, data_dir, tokenizer, name):
    records = json.loads((data_dir / name).read_text())
    expected = []
    for record in records:
        if record["output"]:
            question = record["instruction"] + ("\n" + record["input"] if record["input"] else "")
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
            expected.append(peer(tokenizer, turns))
    assert len(expected) > 90
    same(ours(model_gguf, data_dir / name), expected)


ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def test_conversations(tmp_path, model_gguf, data_dir, tokenizer):
    """Conversations of several turns, with and without a system message; also real ones, without their tool calls."""
    conversations = []
    for record in json.loads((data_dir / "glaive_toolcall_en_demo.json").read_text()):
        turns = [turn for turn in record["conversations"] if turn["from"] in ROLES]
        kept = [turn for i, turn in enumerate(turns) if turn["from"] == ("human", "gpt")[i % 2]]
        kept = kept[: len(kept) // 2 * 2]
        if kept and all(turn["from"] == ("human", "gpt")[i % 2] for i, turn in enumerate(kept)):
            conversations.append(kept)
    assert len(conversations) > 100 and max(map(len, conversations)) > 4
    for i in range(0, len(conversations), 3):
        conversations[i] = [{"from": "system", "value": "You answer briefly."}, *conversations[i]]
    messages = [[{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns] for turns in conversations]
    expected = [peer(tokenizer, turns) for turns in messages]

    (tmp_path / "sharegpt.json").write_text(json.dumps([{"conversations": turns} for turns in conversations]))
    same(ours(model_gguf, tmp_path / "sharegpt.json"), expected)
    (tmp_path / "messages.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in messages))
    same(ours(model_gguf, tmp_path / "messages.jsonl"), expected)


def test_plain_text_and_completions(tmp_path, model_gguf, data_dir, tokenizer):
    texts = [json.loads(line)["text"] for line in (data_dir / "c4_demo.jsonl").read_text().splitlines()[:100]]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = []
    for text in texts:
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        expected.append({"ids": ids, "labels": ids})
    same(ours(model_gguf, tmp_path / "text.jsonl"), expected)

    pairs = [(text[:80], " " + text[80:].strip()) for text in texts if len(text) > 100]
    lines = "".join(json.dumps({"prompt": prompt.strip(), "completion": rest}) + "\n" for prompt, rest in pairs)
    (tmp_path / "completion.jsonl").write_text(lines)
    expected = []
    for prompt, rest in pairs:
        # A completion begins with a space, which never joins what precedes it.
        before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt.strip(), rest))
        after.append(tokenizer.eos_token_id)
        expected.append({"ids": before + after, "labels": [IGNORED] * len(before) + after})
    same(ours(model_gguf, tmp_path / "completion.jsonl"), expected)


# Reads what messages of reasoning models, tool calls and several authors hold, and parts.
KEYS = """{%- if tools %}{{ tools | tojson }}
{% endif %}
{%- for m in messages %}[{{ m.role }}]
{%- if m.name is defined %}{{ m.name }}:{% endif %}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{%- if m['thinking'] %}{% for step in m['thinking'] %}<{{ step.text }}|{{ step.weight }}>{% endfor %}{% endif %}
{%- if m.tool_call_id %}({{ m.tool_call_id }}){% endif %}
{%- if m.content is string %}{{ m.content }}
{%- elif m.content %}{% for part in m.content %}{{ part.text }}/{% endfor %}{% endif %}
{%- for call in m.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}
{%- if m.function_call %}{{ m.function_call | tojson }}{% endif %}
{{- '</s>' }}
{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "Weather of a place – now.", "parameters": {
        "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}}}]


def asked(**answer):
    return [{"role": "user", "content": "Weather in Kyōto?"}, {"role": "assistant"} | answer]


def call(arguments):
    return [{"type": "function", "id": "c1", "function": {"name": "weather", "arguments": arguments}}]


ANSWERED = [{"role": "tool", "name": "weather", "tool_call_id": "c1", "content": '{"c": 21}'},
            {"role": "assistant", "content": "21 °C", "reasoning_content": "It says so."}]
CALLS = [
    {"messages": asked(content="", tool_calls=call({"place": "Kyōto", "days": 2, "exact": True, "unit": None, "x": [1.5, {}]}))
     + ANSWERED, "tools": TOOLS},
    {"messages": asked(content="I look.", reasoning_content="Where?", tool_calls=call({"z": 1, "a": 2}) * 2), "tools": TOOLS},
]
KEYED = [
    *CALLS,
    {"messages": asked(content=None, tool_calls=call('{"place": "Kyōto"}'))},
    {"messages": asked(tool_calls=call({}))},
    {"messages": asked(content="", function_call={"name": "weather", "arguments": "{}"})},
    {"messages": asked(content="Sunny.", reasoning_content="I know.", name="ann")},
    {"messages": asked(content="Sunny.", thinking=[{"text": "a", "weight": 1}, {"weight": 2.5, "text": "b"}])},
    {"messages": [{"role": "user", "name": "bob", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}]},
    {"messages": [{"role": "assistant", "content": "I open.", "name": "ann"}, *asked(content="And then?"), *asked(content="")]},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """tiny(template): the folder of a small model with that chat template, and its tokenizer by transformers."""
    root = tmp_path_factory.mktemp("tiny")
    save_llama(root / "model")

    def with_template(template):
        config = json.loads((root / "model" / "tokenizer_config.json").read_text())
        (root / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        return root / "model", transformers.AutoTokenizer.from_pretrained(root / "model")

    return with_template


def peer_examples(tokenizer, record):
    """The examples of a conversation: one with all answers if the text of each begins the next one's, else one for each."""
    messages, options = record["messages"], {"tools": record.get("tools")}
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    texts = [render(tokenizer, messages[: i + 1], **options) for i in turns]
    generation = render(tokenizer, messages[1:2], add_generation_prompt=True)[len(render(tokenizer, messages[1:2])):]
    begins = [len(render(tokenizer, messages[:i], add_generation_prompt=True, **options)) if i else texts[0].index(generation)
              + len(generation) for i in turns]
    spans = [(begin, len(text.rstrip("\n"))) for begin, text in zip(begins, texts, strict=True)]
    nested = all(after.startswith(before) for before, after in zip(texts, texts[1:]))
    for text, targets in [(texts[-1], spans)] if nested else [(text, [span]) for text, span in zip(texts, spans, strict=True)]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        yield {
            "ids": encoded["input_ids"],
            "labels": [
                token if any(begin <= first and stop <= end for begin, end in targets) else IGNORED
                for token, (first, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            ],
        }


def test_keys_of_messages_and_tools_reach_the_template(tmp_path, tiny):
    model, tokenizer = tiny(KEYS)
    (tmp_path / "keys.jsonl").write_text("".join(json.dumps(record) + "\n" for record in KEYED))
    expected = [example for record in KEYED for example in peer_examples(tokenizer, record)]
    assert len(expected) == len(KEYED)
    same(ours(model, tmp_path / "keys.jsonl"), expected)
    # A table's file has every key in every message, null where it is absent.
    keys = {key for record in KEYED for message in record["messages"] for key in message} - {"content"}
    filled = [record | {"messages": [dict.fromkeys(keys) | message for message in record["messages"]]} for record in KEYED]
    (tmp_path / "filled.json").write_text(json.dumps(filled))
    same(ours(model, tmp_path / "filled.json"), expected)


def test_qwen3_renders_calls_tools_and_thinking(tmp_path, tiny):
    """Its template drops the thinking of earlier answers, so each answer of such a conversation is an example."""
    template = json.loads((tokenizer_folder("qwen3") / "tokenizer_config.json").read_text())["chat_template"]
    model, tokenizer = tiny(template.replace("<|im_end|>", "</s>"))
    records = [*CALLS, {"messages": asked(content="Sunny.", reasoning_content="I know.")}]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    same(ours(model, tmp_path / "calls.jsonl"), [example for record in records for example in peer_examples(tokenizer, record)])


def test_end_tokens_within_a_text(tmp_path, tiny):
    """As TRL: all of a text or a completion is a target, and an end token follows unless there is one at the end."""
    model, tokenizer = tiny(KEYS)
    texts = ["<p>a</p></s>b", "a</s>", "a</s>\n", "</s></s>x ", "[user]q</s>\n[assistant]a"]
    lines = [{"text": text} for text in texts]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    expected = []
    for text in texts:
        ids = tokenizer(text if text.endswith("</s>") else text + "</s>")["input_ids"]
        expected.append({"ids": ids, "labels": ids})
    same(ours(model, tmp_path / "text.jsonl"), expected)

    lines = [{"prompt": "p</s>", "completion": text} for text in texts]
    (tmp_path / "completion.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = tokenizer("p</s>")["input_ids"]
    same(ours(model, tmp_path / "completion.jsonl"),
         [{"ids": before + each["ids"], "labels": [IGNORED] * len(before) + each["labels"]} for each in expected])

    records = [{"messages": asked(content=text)} for text in texts]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    same(ours(model, tmp_path / "chat.jsonl"), [example for record in records for example in peer_examples(tokenizer, record)])
