"""An adapter saved with a tokenizer that differs from the base's: every command that takes the folder uses its chat template and end
token, as Python does when it loads the tokenizer from there; merging and continued training keep them; adapters that contradict
each other are refused."""

import itertools
import json
import shutil

import peft
import pytest
import torch
import transformers
from tiny_llama import save_llama

from method_support import base_model

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
OTHER = TEMPLATE.replace("[assistant]", "<assistant>")
END = "e"
CHAT = {"messages": [{"role": "user", "content": "one and one"}, {"role": "assistant", "content": "two"}]}


@pytest.fixture
def folder(tmp_path):
    """A base without a chat template, and HF PEFT's adapter of it with one."""
    save_llama(tmp_path / "model")
    torch.manual_seed(1)
    model = peft.get_peft_model(base_model(tmp_path), peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    model.save_pretrained(tmp_path / "theirs")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    words.chat_template, words.eos_token = TEMPLATE, END
    words.save_pretrained(tmp_path / "theirs")
    (tmp_path / "train.jsonl").write_text((json.dumps(CHAT) + "\n") * 4)
    return tmp_path


def of_adapter(folder, name="theirs"):
    return transformers.AutoTokenizer.from_pretrained(folder / name)


def experiment(folder, adapter, name="run"):
    path = folder / f"{name}.toml"
    path.write_text(
        f'[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\ncache = ""\n[adapter]\n{adapter}\n'
        f'[training]\noutput_dir = "{name}"\nmax_steps = 2\nbatch_size = 2\n'
    )
    return path


def generated_there(folder, prompt):
    words = of_adapter(folder)
    model = peft.AutoPeftModelForCausalLM.from_pretrained(folder / "theirs", dtype=torch.float32).eval()
    text = words.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([words.encode(text)])
    with torch.no_grad():
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False,
                              eos_token_id=[words.eos_token_id, 1])
    return made[0, ids.shape[1]:].tolist()


def test_generation_equals_transformers(run, folder):
    words, ended = of_adapter(folder), 0
    for prompt, end in itertools.product(("one", "x y z"), "eatxzQ0~"):
        words.eos_token = end
        words.save_pretrained(folder / "theirs")
        made = generated_there(folder, prompt)
        ended += len(made) < 80 and made[-1] == words.eos_token_id
        text_printed = run("peft-run", "generate", "--model", folder / "model", "--adapter", folder / "theirs", "--prompt", prompt,
                   "--max-new-tokens", 80).stdout
        expected = words.decode([token for token in made if token > 1 and token != words.eos_token_id]) + "\n"
        assert text_printed == expected.replace("\r\n", "\n").replace("\r", "\n")  # as Python reads what is printed
    assert ended > 0  # else the end token is not tested


def test_eval_uses_the_saved_template(run, folder):
    """The targets of a conversation are the answer and its EOS token: four tokens here."""
    result = run("peft-run", "eval", "--model", folder / "model", "--data", folder / "train.jsonl", "--adapter", folder / "theirs")
    words = of_adapter(folder)
    text = words.apply_chat_template(CHAT["messages"], tokenize=False)
    ids = torch.tensor([words.encode(text)])
    begin = len(words.encode(text[:text.rindex("]") + 1]))
    labels = ids.clone()
    labels[0, :begin] = -100
    model = peft.AutoPeftModelForCausalLM.from_pretrained(folder / "theirs", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss.item()
    assert float(result.stdout.splitlines()[-1].split()[0]) == pytest.approx(expected, abs=1e-4)


def test_continued_training_keeps_the_tokenizer(run, folder):
    assert "chat template" in run("peft-run", experiment(folder, 'name = "lora"', "alone"), code=3).stderr
    run("peft-run", experiment(folder, 'init_from = "theirs"'))
    words = of_adapter(folder, "run")
    assert (words.chat_template, words.eos_token) == (TEMPLATE, END)
    run("peft-run", "merge", "--model", folder / "model", "--adapter", folder / "run", "--output", folder / "merged")
    words = of_adapter(folder, "merged")
    assert (words.chat_template, words.eos_token) == (TEMPLATE, END)
    generation = transformers.AutoModelForCausalLM.from_pretrained(folder / "merged").generation_config
    assert generation.eos_token_id == [words.eos_token_id, 1]
    assert words.encode("some words") == of_adapter(folder).encode("some words")


def test_base_tokenizer_is_not_copied(run, folder):
    """If an adapter's tokenizer equals the base's, no tokenizer is saved with an adapter that is trained further from it."""
    transformers.AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "theirs")
    (folder / "theirs" / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    run("peft-run", experiment(folder, 'init_from = "theirs"'))
    assert not (folder / "run" / "tokenizer_config.json").exists()


def test_overwrite_removes_old_tokenizer_files(run, folder):
    run("peft-run", experiment(folder, 'init_from = "theirs"'))
    (folder / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    run("peft-run", experiment(folder, 'name = "lora"'), "--set", "training.overwrite_output_dir=true")
    assert not {path.name for path in (folder / "run").iterdir()} & {"tokenizer_config.json", "chat_template.jinja"}


def test_conflicting_tokenizers_are_refused(run, folder):
    shutil.copytree(folder / "theirs", folder / "other")
    both = ["--model", folder / "model", "--prompt", "x", "--adapter", folder / "theirs", "--adapter", folder / "other"]
    run("peft-run", "generate", *both)
    (folder / "other" / "chat_template.jinja").write_text(OTHER)
    printed = run("peft-run", "generate", *both, code=3).stderr
    assert f"{folder}/other: its chat template differs from that of the adapter before it" in printed


def test_broken(run, folder):
    for name, text, part in (("chat_template.jinja", "{% for", "broken: chat template: "), ("tokenizer_config.json", "[1]", "must be an object"),
                             ("tokenizer_config.json", '{"eos_token": 3}', "'eos_token' must be a string")):
        shutil.copytree(folder / "theirs", folder / "broken")
        (folder / "broken" / name).write_text(text)
        result = run("peft-run", "generate", "--model", folder / "model", "--adapter", folder / "broken", "--prompt", "x", code=3)
        assert part in result.stderr, result.stderr
        shutil.rmtree(folder / "broken")


def own_template(folder, name="own"):
    (folder / "own.jinja").write_text(TEMPLATE)
    path = experiment(folder, 'name = "lora"', name)
    path.write_text(path.read_text().replace('path = "model"', 'path = "model"\nchat_template = "own.jinja"'))
    return path


def test_own_template_is_used_and_saved(run, folder, tmp_path_factory):
    path = own_template(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # the path starts at the experiment file
    assert "[user]one and one" in run("peft-run", "plan", path, cwd=elsewhere).stdout
    run("peft-run", path, cwd=elsewhere)
    assert (folder / "own" / "chat_template.jinja").read_text() == TEMPLATE
    assert "chat_template" not in json.loads((folder / "own" / "tokenizer_config.json").read_text())
    assert of_adapter(folder, "own").chat_template == TEMPLATE
    (folder / "own.jinja").unlink()
    ask = ["--model", folder / "model", "--adapter", folder / "own"]
    run("peft-run", "generate", *ask, "--prompt", "x")
    run("peft-run", "eval", *ask, "--data", folder / "train.jsonl")
    run("peft-run", "merge", *ask, "--output", folder / "merged")
    assert of_adapter(folder, "merged").chat_template == TEMPLATE


def test_own_template_on_the_command_line(run, folder):
    (folder / "own.jinja").write_text(TEMPLATE)
    base = ["--model", folder / "model"]
    data = ["--data", folder / "train.jsonl"]
    assert "--chat-template" in run("peft-run", "eval", *base, *data, code=3).stderr
    run("peft-run", "eval", *base, *data, "--chat-template", folder / "own.jinja")
    system = ["--prompt", "x", "--system", "y"]
    assert "--chat-template" in run("peft-run", "generate", *base, *system, code=2).stderr
    run("peft-run", "generate", *base, *system, "--chat-template", folder / "own.jinja")
    run("peft-run", "generate", *base, "--prompt", "x", "--raw", "--chat-template", folder / "own.jinja", code=2)


def test_named_template(run, folder):
    (folder / "model" / "chat_template.jinja").write_text("{{ raise_exception('the default') }}")
    (folder / "model" / "additional_chat_templates").mkdir()
    (folder / "model" / "additional_chat_templates" / "tool_use.jinja").write_text(TEMPLATE)
    path = experiment(folder, 'name = "lora"', "named")
    assert "the default" in run("peft-run", path, code=3).stderr
    run("peft-run", path, "--set", "model.chat_template=tool_use")
    assert of_adapter(folder, "named").chat_template == TEMPLATE
    printed = run("peft-run", path, "--set", "model.chat_template=rag", "--set", "training.overwrite_output_dir=true", code=2).stderr
    assert "'rag' is neither a .jinja file nor a template of" in printed
    assert "'default', 'tool_use'" in printed


def test_template_that_cannot_be_read(run, folder):
    path = own_template(folder)
    (folder / "own.jinja").write_text("{% for")
    assert "own.jinja: chat template: " in run("peft-run", path, code=3).stderr
    (folder / "own.jinja").unlink()
    assert "own.jinja" in run("peft-run", path, code=3).stderr


R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[user]' + m.content }}{% else %}"
    "{% set content = m.content.split('</think>')[-1] %}{{ '[assistant]' + content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\\n' }}{% endif %}"
)


def test_template_that_begins_the_thinking(run, folder):
    """As DeepSeek-R1-Distill's does: refused with what to do, and that works."""
    path = own_template(folder)
    (folder / "own.jinja").write_text(R1)
    printed = run("peft-run", path, code=3).stderr
    assert "does not start with its generation prompt" in printed
    assert "[model] chat_template" in printed
    (folder / "own.jinja").write_text(R1.replace("<think>\\n", ""))
    run("peft-run", path)
