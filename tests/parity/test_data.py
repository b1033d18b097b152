"""Training data becomes the tokens and labels that Hugging Face's tokenizer and chat template produce: equal ids on real instruction
data, and as targets exactly what the template writes for the assistant after its own generation prompt, up to and including the
end token."""

import json

import gguf
import pytest
import transformers

from model_support import run_tool
from text_support import tokenizer_folder

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
