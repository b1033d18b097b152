"""Every construct that chat templates use renders to the same text as in transformers' Jinja2 environment, or is refused with an
error. The constructs that are refused though Jinja2 renders them are listed here and in docs/data.md."""

import re
from pathlib import Path

import pytest
from test_chat_template import peers_date  # noqa: F401  (a fixture)
from text_support import run_tool
from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": " Grüße, ǆ ŉ? İstanbul 中文 😀 'q' \"d\" "},
    {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nan answer, x"},
]
EXPRESSIONS = """
# output of every type
none
true
1
-1
1.0
1e
0.1 + 0.2
1.5 * 1000000000
100000000.0 * 1000000000
0.00001 * 1.0
3 / 2
'text'
[1, 2.0, 'a', none, true, "it's", 'say "x"', 'both \\' "']
[]
{}
{'a': 1, 'b': [1, {'c': none}]}
(1, 'b')
(1,)
()
1, 2
['Grüße\\n\\t\\\\', '\x7f\x85\u200b']
messages
messages[1]
messages[0].content
missing
missing.attribute
messages[0].missing
messages[0].missing.deeper
messages[0]['missing']
messages[9]
messages[9].role
[missing]
# arithmetic
7 // 2
-7 // 2
7.5 // 2
7 % 3
-7 % 3
7 % -3
-7.5 % 2
7 / 0
7 // 0
7 % 0
7.0 % 0
2 ** 3
9223372036854775807 + 1
9223372036854775807 * 2
-9223372036854775807 - 2
99999999999999999999
9007199254740993 + 0
9007199254740993 * 3 == 27021597764222979
9007199254740993 < 9007199254740992.0
1 + true
- 3 | abs
-messages|length
+4
not -1
1 - -1
loop
'a' * 3
3 * 'ab'
[1, 2] * 2
(1,) * 2
'a' * -1
'a' + 'b' ~ 'c'
'a' ~ 1 + 2
1 ~ 2 ~ none ~ missing ~ true ~ 1.5 ~ [1]
2 * 3 ~ 4
'a' + 1
1 + 'a'
'a' + none
none + 'a'
'a' + missing
missing + 1
[1] + [2]
(1,) + (2,)
[1] + (2,)
'%s and %s' % ('a', 1)
'%d%%' % 5
'%.2f' % 1.005
'%s' % messages[0].role
'%5d' % 3
# comparison and logic
1 == 1.0
1 == true
'1' == 1
[1, {'a': 2}] == [1, {'a': 2}]
[1] == (1,)
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
none == missing
missing == other
1 < 2.5
'a' < 'b'
'a' < 1
none < 1
[1, 2] < [1, 3]
1 < 2 < 3
1 != 2
not 1 == 2
'' or 'x'
'x' and 0
none or missing or []
1 if 0
1 if 0 else 2
1 if 0 else 2 if 0 else 3
'a' in 'abc'
1 in 'abc'
1 in [1, 2]
1 not in [1, 2]
'role' in messages[0]
'x' in missing
'x' in none
[1] in [[1]]
[1] in {1: 2}
# subscripts and slices
'abc'[0]
'abc'[-1]
'abc'[9]
messages[1].content[1:6]
messages[1].content[-3:]
messages[1].content[::-1]
messages[1].content[2]
'abcdef'[4:1:-1]
'abcdef'[::2]
'abcdef'[10:]
'abcdef'[:-10]
'abcdef'[::0]
[1, 2, 3][1:]
[1, 2, 3][::-1]
[1, 2, 3][-5:2]
(1, 2, 3)[:1]
[1, 2, 3]['x']
[1, 2, 3][true]
[1, 2, 3][1.0]
messages[:-1]|length
messages[::-1][0].role
messages[1:][0]['role']
none[0]
none.x
missing[0]
{1: 'a'}[1]
{1: 'a'}[1.0]
{'items': 3}.items
{'items': 3}['items']
{'x': 3}.x
{'a': 1}['keys']
{[1]: 2}
(1).real
1.x
'abc'.foo
[1].length
'abc'.length
messages.0
# methods of strings
messages[1].content.upper()
messages[1].content.lower()
'straße'.upper()
'ǆ'.capitalize()
'ŉ'.upper()
'ΑΣ'.lower()
'hello wOrld'.title()
'hELLO'.capitalize()
messages[0].content.strip()
'xxaxx'.strip('x')
'xyaxy'.lstrip('xy')
'a..'.rstrip('.')
'\u3000a\u00a0'.strip()
'a b  c'.split()
' a b  c '.split(none, 1)
'a,b,,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b c '.rsplit(none, 1)
'a'.split('')
'a\\nb\\r\\nc'.splitlines()
'a\\n'.splitlines(true)
messages[2].content.split('</think>')[-1].lstrip('\\n')
messages[2].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')
messages[2].content.startswith('<think>')
'abc'.startswith(('x', 'a'))
'abc'.endswith('bc')
'abc'.endswith('')
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'äö'.replace('', '-')
'abcabc'.find('c')
'äöü'.find('ü')
'abcabc'.rfind('c')
'abc'.find('x')
'abcabc'.count('b')
'ab'.count('')
'-'.join(['a', 'b'])
'-'.join(messages|map(attribute='role'))
'-'.join([1])
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'12'.isdigit()
'12'.isdecimal()
'1a'.isnumeric()
''.isdigit()
'a1'.isalnum()
'ab'.isalpha()
' '.isspace()
'é'.isalpha()
'{} {}'.format(1, 'a')
'{0}{1}{0}'.format('a', 'b')
'{x}'.format(x=3)
'{:>5}'.format(3)
'{}'.format()
'{{}}'.format()
'a'.zfill(3)
'a'.center(5)
'a'.upper
'abc'.strip(1)
'abc'.upper(1)
'AbC'.swapcase()
'ab'.index('b')
# methods of dictionaries and lists
messages[0].get('role')
messages[0].get('missing')
messages[0].get('missing', 'default')
{1: 2}.get(1)
messages[0].keys()|list
messages[0].values()|list
messages[0].items()|list
messages[0].keys()
messages[0].items()|length
messages[0].copy()
messages[0].pop('role')
messages[0].update({'a': 1})
[1].append(2)
[2, 1].sort()
[1, 2, 1].count(1)
[1, 2].index(2)
[1].index(3)
dict(a=1, b='x')
dict({'a': 1})
namespace(a=1).a
namespace(a=1)
namespace({'a': 1}).a
namespace(a=1).b
range(3)
range(3)|list
range(1, 4)|list
range(3, 0, -1)|list
range(3)[1]
range(0)|length
range(1, 2, 0)
range('a')
lipsum()
cycler('a', 'b').next()
joiner(',')()
# filters
-3|abs
'a'|abs
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3]|batch(2, 'x')|list
'hELLO'|capitalize
none|capitalize
'a'|center(5)
[1, 2]|count
missing|d('x')
missing|default('x')
none|default('x')
none|default('x', true)
''|default('x', boolean=true)
'a'|default('x')
missing|default
missing.x|default('y')
{'b': 1, 'A': 2}|dictsort
{'b': 1, 'A': 2}|dictsort(true)
{'b': 1, 'a': 2}|dictsort(by='value')
{'b': 1, 'a': 2}|dictsort(reverse=true)
'<a>'|escape
'<a>'|e
'<a>'|safe
('<a>'|safe) + '<b>'
messages[0]|tojson|safe
3000|filesizeformat
[1, 2]|first
[]|first
'abc'|first
missing|first
none|first
'3.5'|float
'x'|float
'x'|float(1.5)
' 1_0.5e1 '|float
true|float
'inf'|float
'%s-%s'|format('a', 2)
'%s'|format
[{'a': 1}]|groupby('a')
'a\\nb\\n\\nc'|indent
'a\\nb'|indent(2, true)
'a\\n\\nb'|indent(width=1, blank=true)
'a\\nb'|indent('> ')
'42'|int
' -42 '|int
'42.9'|int
'x'|int
'x'|int(7)
'ff'|int(0, 16)
2.9|int
-2.9|int
none|int
missing|int
'1_000'|int
'99999999999999999999'|int
[1, 'a', none, missing, 2.5]|join(',')
[1, 2]|join
messages|join(', ', attribute='role')
messages|join(', ', 'role')
'abc'|join('-')
missing|join
none|join
[1, 2]|last
'abc'|last
[]|last
messages[1].content|length
messages|length
messages[0]|length
none|length
missing|length
1|length
range(5)|length
[1, 2]|map('string')|length
'äb'|list
messages[0]|list
none|list
messages[1].content|lower
none|lower
missing|lower
messages|map(attribute='role')|list
messages|map(attribute='role')|join(' ')
messages|map(attribute='content.x')|list
messages|map(attribute='missing', default='d')|list
[[1, 2], [3]]|map(attribute=0)|list
[[1, 2], [3]]|map(attribute='0')|list
['a', 'b']|map('upper')|list
[' a ']|map('trim')|join
['ab']|map('replace', 'a', 'c')|join
messages|map
messages|map('tojson')|first
['a']|map('nothing')|list
none|map('upper')|list
[1, 2]|map('string')
[1, 3, 2]|max
[]|max
['b', 'A']|min
messages|max(attribute='role')
[1, 'a']|max
[1, 2]|pprint
[1]|random
[1, 2, 3]|reject('odd')|list
messages|rejectattr('role', 'equalto', 'system')|map(attribute='role')|list
messages|rejectattr('missing')|list|length
'aaa'|replace('a', 'b')
'aaa'|replace('a', 'b', 1)
1|replace(1, 2)
'abc'|reverse
[1, 2]|reverse|list
[1, 2]|reverse
2.5|round
3.5|round
-0.5|round
2|round
2.567|round(2)
2.1|round(method='ceil')
2.9|round(method='floor')
[0, 1, '', 'a']|select|list
[1, 2, 3]|select('odd')|list
[1, 2, 3]|select('gt', 1)|list
['a', 1]|select('string')|list
messages|selectattr('role', 'equalto', 'user')|list|length
messages|selectattr('role', 'eq', 'user')|map(attribute='role')|first
messages|selectattr('role', 'in', ['user', 'assistant'])|map(attribute='role')|list
messages|selectattr('content')|list|length
messages|selectattr('missing', 'defined')|list|length
messages|selectattr('role', 'nothing')|list
1 if messages|selectattr('role', 'equalto', 'nobody') else 0
'system' in messages|map(attribute='role')
[1, 2, 3]|slice(2)|list
[3, 1, 2]|sort
[3, 1, 2]|sort(reverse=true)
['b', 'A', 'a']|sort
['b', 'A', 'a']|sort(case_sensitive=true)
messages|sort(attribute='role')|map(attribute='role')|list
[1, 'a']|sort
[[2], [1]]|sort
1.0|string
none|string
[1, 'a']|string
'<b>x</b>'|striptags
[1, 2, 3]|sum
[{'a': 1}, {'a': 2}]|sum(attribute='a')
['a']|sum
[1.5]|sum(start=1)
'hello-wOrld (x)'|title
'été'|title
'  a '|trim
'xax'|trim('x')
none|trim
messages[0].content|trim
'a long text'|truncate(5)
[1, 1.0, 'a', 'A', 2]|unique|list
'a b'|urlencode
'http://x.y'|urlize
'straße'|upper
messages[1].content|upper
none|upper
'a b c'|wordcount
'a b c'|wordwrap(3)
{'a': 1}|xmlattr
{'a': 1}|items|list
none|items
missing|items|list
'x'|attr('upper')
{'a': 1}|attr('a')
'a'|nothing
'a'|upper('x')
# tojson
messages[1]|tojson
messages|tojson(indent=2)
{'a': [1, {'b': []}], 'c': {}}|tojson(indent=4)
[1, 2]|tojson(indent=0)
{'é': '中😀\x7f'}|tojson(ensure_ascii=true)
{'é': '中'}|tojson(ensure_ascii=false)
[1, {'a': 2}]|tojson(separators=(',', ':'))
[1, {'a': 2}]|tojson(separators=[', ', ': '], indent=1)
{'b': 1, 'a': 2}|tojson(sort_keys=true)
[1.0, 0.1, 100000.0, none, true, 'a"\\\\\\n\\t</b>&\\'']|tojson
[100000000.0 * 1000000000, 0.1 / 1000000]|tojson
{1: 2, none: 3, true: 4, 1.5: 6}|tojson
(1, 2)|tojson
missing|tojson
range(2)|tojson
{'a': 1}.items()|tojson
'\u2028'|tojson
tojson([1])
{}|tojson(indent='  ')
[1]|tojson(indent='\\t')
# tests
missing is defined
messages is defined
missing is undefined
none is not none
'a' is string
1 is string
messages is iterable
messages is sequence
messages is mapping
messages[0] is mapping
'a' is iterable
'a' is sequence
none is iterable
missing is iterable
messages|map(attribute='role') is sequence
1 is number
true is number
true is integer
1 is integer
1.0 is float
1 is float
true is boolean
1 is boolean
true is true
1 is true
false is false
3 is odd
2 is even
'a' is odd
4 is divisibleby 2
4 is divisibleby(3)
4 is divisibleby(0)
1 is eq 1
1 is equalto(1)
1 is ne 2
2 is gt 1
2 is ge 2
1 is lt 2
1 is le 0
1 is lessthan(2)
2 is greaterthan 1
'a' is in ['a']
'a' is in 'abc'
none is sameas none
true is sameas(true)
1 is sameas 1
'abc' is lower
'ABC' is upper
'1' is lower
'é' is lower
raise_exception is callable
'a' is callable
'a' is escaped
'upper' is filter
'odd' is test
1 is nothing
1 is defined if true else 3
1 is defined is true
# functions
strftime_now('%Y-%m-%d')
strftime_now('%d %b %Y %H:%M:%S %f%z%Z%%')
strftime_now('%-d %B, %A')
strftime_now('')
raise_exception('no')
missing()
messages()
'a'()
bos_token + eos_token
pad_token
pad_token is defined
add_generation_prompt
tools
[1 2]
{'a' 1}
(1
'unterminated
'a\\x41\\u00e9'
'\\d'
"a" "b"
0x10
1_000
1e3
007
self
caller
""".strip("\n").split("\n")
STATEMENTS = [
    "{{ none is none }}{{ missing is none }}{{ tools is none }}{{ documents is none }}",
    # whitespace control
    "  {% if true %}\n  a\n  {% endif %}\nb",
    "a {%- if true -%} b {%- endif -%} c",
    "a\n  {{- ' b ' -}}  \n c",
    "a\n   {# comment #}\nb {#- x -#} c",
    "a{% if true %}\n\nb{% endif %}\n\n",
    "a {% if true %}b{% endif %}",
    "x{% if true %}b{% endif %}",
    "{{ 'a' }}  {% if true %}b{% endif %}",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n",
    "a\n\n",
    "{% if true +%}\na{% endif %}",
    "  {%+ if true %}a{% endif %}",
    "{% raw %}{{ x }}{% endraw %}",
    "{%- for m in messages %}\n    {%- if m.role == 'user' %}\n        {{- m.content }}\n    {%- endif %}\n{%- endfor %}",
    "\t{% set x = 1 %}\t{{ x }}",
    "\u3000{%- if true %}a{% endif %}",
    # conditions
    "{% if missing %}a{% elif 0 %}b{% else %}c{% endif %}",
    "{% if messages and messages[0].role == 'system' %}s{% endif %}",
    "{% if [] %}a{% elif {} %}b{% elif '' %}c{% elif 0.0 %}d{% elif namespace() %}e{% endif %}",
    "{% if messages|map(attribute='x') %}a{% endif %}",
    "{% if range(0) %}a{% else %}b{% endif %}",
    # loops
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}"
    "{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem.role }}{{ loop.nextitem.role }} {% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}{{ (loop.nextitem|default({})).role }},{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{{ loop['index'] }}{{ loop.nothing }}{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}",
    "{% for i in [1] %}{{ loop }}{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{% endfor %}",
    "{% for i in range(6) if i is odd %}{{ loop.length }}{{ i }}{% endfor %}",
    "{% for i in [] %}a{% else %}b{% endfor %}",
    "{% for i in [1] %}{% continue %}{% else %}b{% endfor %}",
    "{% for i in missing %}a{% else %}b{% endfor %}",
    "{% for i in none %}a{% endfor %}",
    "{% for i in 3 %}a{% endfor %}",
    "{% for c in 'aé😀' %}[{{ c }}]{% endfor %}",
    "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}|items %}{{ k }}={{ v }} {% endfor %}",
    "{% for k, v in {'ab': 1} %}{{ k }}={{ v }}{% endfor %}",
    "{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}={{ v }} {% endfor %}",
    "{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [[1]] %}{{ a }}{% endfor %}",
    "{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for i in [1, 2, 3] %}a{% if i == 2 %}b{% break %}{% endif %}c{% endfor %}",
    "{% for i in [1, 2, 3] %}a{% if i == 2 %}b{% continue %}{% endif %}c{% endfor %}",
    "{% for i in [1, 2] %}{% for j in [3, 4] %}{{ i }}{{ j }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in [1, 2] %}{% set outer = loop %}{% for j in [3] %}{{ outer.index }}{% endfor %}{% endfor %}",
    "{% for i in [1, [2]] recursive %}{{ i if i is number else loop(i) }}{% endfor %}",
    "{% for i in [1] %}{% endfor %}{{ i }}",
    "{% for i in a if c else b %}{{ i }}{% endfor %}",
    "{% for i in 1, 2 %}{{ i }}{% endfor %}",
    "{% for m in messages[1:] %}{{ m.role }}{% endfor %}{% for m in messages|reverse %}{{ m.role }}{% endfor %}",
    "{% break %}",
    # assignments and scopes
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{% if loop.first %}{% set y = 7 %}{% endif %}{{ y }}|{% endfor %}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set ns = namespace(n=0, found=false) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns['a'] }}{{ ns.items }}",
    "{% set d = {'a': 1} %}{% set d.a = 2 %}{{ d }}",
    "{% set x %}a{{ 1 }}{% endset %}[{{ x }}]{{ x is string }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% set x | upper %}a{% endset %}{{ x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2, 3] %}{{ a }}",
    "{% set (a, b) = 'xy' %}{{ a }}{{ b }}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% set x = messages if messages is defined else [] %}{{ x|length }}",
    "{% set t = [] %}{% set t = t + [1] %}{{ t }}",
    "{% set g = [1, 2]|map('string') %}{{ g|join }}|{{ g|join }}",
    "{% set g = [1, 2]|map('string') %}{{ g|first }}|{{ g|join }}",
    "{% set g = [1, 2]|map('string') %}{{ g[0] }}",
    "{% with x = 1 %}{{ x }}{% endwith %}",
    "{% do 1 %}",
    "{% include 'x' %}",
    "{% block x %}a{% endblock %}",
    # macros
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=4, a=5) }} {{ f() }}",
    "{% macro f(a, b=2, c=3) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1, c=5) }}",
    "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(x=2) }}",
    "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f(missing) }}{{ f() }}",
    "{% macro f() %}{{ x }}{% endmacro %}{% set x = 3 %}{{ f() }}{% for x in [1] %}{{ f() }}{% endfor %}",
    "{% macro f() %}{% set x = 3 %}{{ x }}{% endmacro %}{{ f() }}{{ x }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f(x) %}  a{{- x }}\n{% endmacro %}[{{ f('b') | trim }}]",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}",
    "{% macro f() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) f() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro g() %}{{ caller is defined }}{% endmacro %}{% macro f() %}{{ g() }}{{ caller() }}{% endmacro %}"
    "{% call f() %}x{% endcall %}",
    "{% macro f() %}{{ varargs }}{% endmacro %}{{ f(1) }}",
    "{% macro f() %}{{ kwargs }}{{ varargs }}{% endmacro %}{{ f() }}",
    "{% macro f(a=[]) %}{{ a }}{% endmacro %}{{ f() }}{{ f.name }}",
    "{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f() %}{% break %}{% endmacro %}{% for i in [1] %}{{ f() }}{% endfor %}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}",
    "{% macro f() -%} a {%- endmacro %}{{ f() ~ f() }}{{ f()|upper }}{{ f() + 'b' }}",
    # blocks
    "{% filter upper %}a{{ 'b' }}{% endfilter %}",
    "{% filter trim %} a {% endfilter %}|{% filter replace('a', 'b') %}a{% endfilter %}",
    "{% generation %}a{% endgeneration %}b",
    "{% for m in messages %}{%- generation %}{{ m.role }}{% endgeneration -%}\n{% endfor %}",
    "{% if true %}",
    "{% endif %}",
    "{% nothing %}",
    "{{ }}",
    "{% set x = %}",
    "{# open",
    "a } b }} c %} d #} e { f",
    "{{ '}}' }}{{ '{%' }}",
    "{{ {'a': {'b': 1}}.a.b }}{{ {'a': {}} }}",
    "{{ messages[0]['content'] | trim + '|' }}",
    "{{ 'a' if messages|length > 2 and not missing else 'b' }}",
]
# Rendered by Jinja2, refused here; docs/data.md says so.
REFUSED = {
    "case and tests of some letters": [
        "messages[1].content.upper()",
        "'ŉ'.upper()",
        "'ΑΣ'.lower()",
        "'é'.isalpha()",
        "messages[1].content|upper",
        "'é' is lower",
    ],
    "filters": [
        "'a'|center(5)",
        "'<a>'|escape",
        "'<a>'|e",
        "('<a>'|safe) + '<b>'",
        "3000|filesizeformat",
        "[{'a': 1}]|groupby('a')",
        "[1, 2]|pprint",
        "[1]|random",
        "[1, 2, 3]|slice(2)|list",
        "'<b>x</b>'|striptags",
        "'a long text'|truncate(5)",
        "'a b'|urlencode",
        "'http://x.y'|urlize",
        "'a b c'|wordcount",
        "'a b c'|wordwrap(3)",
        "{'a': 1}|xmlattr",
    ],
    "formats": [
        "'%5d' % 3",
        "'{:>5}'.format(3)",
    ],
    "functions, tests and arguments": [
        "lipsum()",
        "cycler('a', 'b').next()",
        "joiner(',')()",
        "'ff'|int(0, 16)",
        "2.567|round(2)",
        "1 is sameas 1",
        "'upper' is filter",
        "'odd' is test",
        "self",
        "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}",
        "{% macro f(a=[]) %}{{ a }}{% endmacro %}{{ f() }}{{ f.name }}",
    ],
    "integers beyond 64 bits": [
        "9223372036854775807 + 1",
        "9223372036854775807 * 2",
        "-9223372036854775807 - 2",
        "99999999999999999999",
        "'99999999999999999999'|int",
    ],
    "methods": [
        "(1).real",
        "'a'.zfill(3)",
        "'a'.center(5)",
        "'AbC'.swapcase()",
        "'ab'.index('b')",
    ],
    "notations of numbers and texts": [
        "'a\\x41\\u00e9'",
        "'\\d'",
        "0x10",
        "1_000",
        "1e3",
    ],
    "printing what is not text, a number, a list or a dictionary": [
        "{'items': 3}.items",
        "{'a': 1}['keys']",
        "'a'.upper",
        "messages[0].keys()",
        "namespace(a=1)",
        "range(3)",
        "messages|map",
        "[1, 2]|map('string')",
        "[1, 2]|reverse",
        "none|items",
        "'x'|attr('upper')",
        "{% for i in [1] %}{{ loop }}{% endfor %}",
    ],
    "syntax": [
        "2 ** 3",
        "1 < 2 < 3",
        "messages.0",
        "{% if true +%}\na{% endif %}",
        "  {%+ if true %}a{% endif %}",
        "{% raw %}{{ x }}{% endraw %}",
        "{% for i in [1, [2]] recursive %}{{ i if i is number else loop(i) }}{% endfor %}",
        "{% for i in 1, 2 %}{{ i }}{% endfor %}",
        "{% set x | upper %}a{% endset %}{{ x }}",
        "{% with x = 1 %}{{ x }}{% endwith %}",
        "{% block x %}a{% endblock %}",
        "{% macro f() %}{{ varargs }}{% endmacro %}{{ f(1) }}",
        "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}",
    ],
}


def templates():
    expressions = [line for line in EXPRESSIONS if not line.startswith("# ")]
    return [*("{{ " + line + " }}" for line in expressions), *STATEMENTS]


def expected(template):
    """The text, or None where Jinja2 raises."""
    try:
        return _compile_jinja_template(template).render(
            messages=MESSAGES, tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        )
    except Exception:  # whatever it raises, the template has no text
        return None


@pytest.fixture(scope="module")
def answers():
    requests = [
        {"template": template, "bos": "<s>", "eos": "</s>", "messages": MESSAGES, "add_generation_prompt": True}
        for template in templates()
    ]
    return dict(zip(templates(), run_tool({"templates": True}, requests), strict=True))


def test_same_text_or_refused(answers):
    wrong = {}
    for template, answer in answers.items():
        wanted = expected(template)
        if "text" in answer and answer["text"] != wanted:
            wrong[template] = {"here": answer["text"], "Jinja2": wanted}
    assert not wrong


def test_refused_constructs_are_listed(answers):
    refused = {t for t, answer in answers.items() if "error" in answer and expected(t) is not None}
    listed = {t if t in answers else "{{ " + t + " }}" for group in REFUSED.values() for t in group}
    assert refused == listed


def test_documentation_lists_what_is_rendered(answers):
    """Each filter and method that docs/data.md lists is used by a construct that renders, and each such filter is listed."""
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    part = text[text.index("- **Filters:**") : text.index("These are errors, although")]
    filters, _, methods, _ = (set(re.findall("`([a-z]+)`", line)) for line in re.split(r"\n- \*\*", part))
    rendered = " ".join(template for template, answer in answers.items() if "text" in answer)
    used = set(re.findall(r"\|\s*([a-z]+)", rendered))
    assert filters == used - {"safe"}
    assert {method for method in methods if not re.search(rf"\.{method}\(", rendered)} == set()
