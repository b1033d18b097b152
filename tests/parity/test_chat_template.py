"""Chat templates render to the same text, and fail with the same error, as transformers' apply_chat_template(tokenize=False)."""

import datetime
import json

import jinja2
import pytest
from text_support import run_tool, tokenizer_folder
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import _compile_jinja_template

# Mistral 7B Instruct's, which no package at hand holds
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# What published templates use in addition to plain loops
FEATURES = """{#- a comment -#}
{%- set ns = namespace(seen=false, count=0) -%}
{%- macro turn(role, text='none') -%}
    <{{ role | upper }}>{{ text | trim }}</{{ role }}>
{%- endmacro -%}
{% for message in messages if message.role != 'system' %}
    {% if loop.first %}
first {{ strftime_now('%Y') | length }} {{ strftime_now('%d %b %Y %H:%M:%S %A %j %y %B') }}
    {% endif %}
    {% set ns.count = ns.count + 1 %}
    {{ turn(message['role'], message.content) }}
    {{- ' last' if loop.last else ' more' }}

  {% if 'x' in message.content and not ns.seen %}{% set ns.seen = true %}{{ message | tojson }}{% endif %}
    {% if message.role is defined and message.missing is not defined %}  kept
    {% endif %}
    {{- message.content.split(' ')[-1] }}|{{ message.content[:3] }}|{{ message.content.strip().startswith('x') }}
{% endfor %}
{{ ns.count ~ '/' ~ messages | length }} {{ messages[::-1][0].role }} {{ messages | map(attribute='role') | join(',') }}
{{ bos_token }}{{ tools is none }}{{ add_generation_prompt }}{{ [1, 2.5, 'a"b\\n', none, true] | tojson }}
"""
# Llama 3.2's
DATE = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
TEMPLATES = ["smollm2", "qwen3", "gemma3", "llama3"]
TURNS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "Hi there\n"), ("assistant", " Hello! "), ("user", "x  é 😀 <|im_end|> {{ 1 }}")],
    [("user", "one"), ("assistant", "<think>\nwhy\n</think>\n\ntwo"), ("user", "three"), ("assistant", "four")],
    [("system", ""), ("user", "")],
    [("user", "a"), ("user", "b")],
    [("assistant", "starts")],
    [("system", "only")],
    [("user", 'quotes " \' \\ \t & < > \u2028 中文')],
]


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, tzinfo=tz)


@pytest.fixture(autouse=True)
def peers_date(monkeypatch):
    """The date that templates see is always the same."""
    monkeypatch.setattr(chat_template_utils, "datetime", FixedDate)


def source(name):
    config = json.loads((tokenizer_folder(name) / "tokenizer_config.json").read_text())
    return config["chat_template"], config.get("bos_token") or "", config.get("eos_token") or ""


def expected(template, bos, eos, request):
    try:
        return {
            "text": _compile_jinja_template(template).render(
                messages=request["messages"],
                tools=None,
                documents=None,
                add_generation_prompt=request["add_generation_prompt"],
                bos_token=bos,
                eos_token=eos,
            )
        }
    except jinja2.TemplateError as error:
        return {"error": str(error)}


def compare(template, bos, eos):
    requests = [
        {"messages": [{"role": role, "content": content} for role, content in turns], "add_generation_prompt": prompt}
        for turns in TURNS
        for prompt in (False, True)
    ]
    answers = run_tool({"template": template, "bos": bos, "eos": eos}, requests)
    rendered = 0
    for request, answer in zip(requests, answers, strict=True):
        wanted = expected(template, bos, eos, request)
        if "error" in wanted:
            assert "error" in answer, request
            if "has no element" not in wanted["error"]:
                assert wanted["error"] in answer["error"], request
        else:
            assert answer == wanted, request
            rendered += 1
    assert rendered >= 4


@pytest.mark.parametrize("name", TEMPLATES)
def test_real_templates(name):
    compare(*source(name))


def test_mistral():
    compare(MISTRAL, "<s>", "</s>")


def test_features():
    compare(FEATURES, "<s>", "</s>")


def test_date():
    compare(DATE, "<s>", "</s>")


def test_raised_error_reports_its_location():
    request = {"messages": [{"role": "tool", "content": ""}], "add_generation_prompt": False}
    answer = run_tool({"template": "\n\n  {{ raise_exception('no ' + messages[0].role) }}", "bos": "", "eos": ""}, [request])
    assert answer[0]["error"].startswith("chat template: line 3, column ")
    assert answer[0]["error"].endswith(": no tool")
