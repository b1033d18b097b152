#include "text/chat_template/template_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/chat_template/template_meter.h"
#include "text/chat_template/template_values.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// Characters whose upper case is more than one character, and the blocks around them.
bool has_long_uppercase(char32_t c) {
  return c == 0x149 || c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 || (c >= 0x1E96 && c <= 0x1E9A) ||
         (c >= 0x1F50 && c <= 0x1FFC) || (c >= 0xFB00 && c <= 0xFB17);
}

void append_upper(std::string& out, char32_t c) {
  if (c == 0xDF)
    out += "SS";
  else if (has_long_uppercase(c))
    fail_unsupported("the upper case of " + python_repr(encode_character(c)));
  else
    append_char(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
}

void append_title(std::string& out, char32_t c) {
  if (c == 0xDF)
    out += "Ss";
  else if (has_long_uppercase(c))
    fail_unsupported("the title case of " + python_repr(encode_character(c)));
  else
    append_char(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
}

/// Appends each character of the text with `append`.
template <typename F>
void each_character(std::string_view text, const F& append) {
  charge_work(8 * text.size());
  for (std::size_t at = 0; at < text.size(); at += char_length(text[at])) append(char_at(text, at));
}

bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

std::size_t previous_character(std::string_view text, std::size_t at) {
  do --at;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

std::vector<std::string> split_at_spaces(const std::string& text, int64_t limit) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < text.size() && is_python_space(char_at(text, at)) == spaces) at += char_length(text[at]);
  };
  for (skip(true); at < text.size(); skip(true)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text.substr(at));
      break;
    }
    const std::size_t begin = at;
    skip(false);
    parts.push_back(text.substr(begin, at - begin));
  }
  return parts;
}

std::vector<std::string> rsplit_at_spaces(const std::string& text, int64_t limit) {
  std::vector<std::string> parts;
  std::size_t at = text.size();
  const auto skip = [&](bool spaces) {
    while (at > 0 && is_python_space(char_at(text, previous_character(text, at))) == spaces)
      at = previous_character(text, at);
  };
  for (skip(true); at > 0; skip(true)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text.substr(0, at));
      break;
    }
    const std::size_t end = at;
    skip(false);
    parts.push_back(text.substr(at, end - at));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

void check_separator(const std::string& text, const std::string& separator) {
  if (separator.empty()) fail("empty separator");
  charge_search(text.size(), separator.size());
}

/// Whether repr() writes the character as it is.
bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return false;
    default:
      return true;
  }
}

void append_format(std::string& out, const char* format, unsigned value) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, format, value);
  out += buffer;
}

void append_escape(std::string& out, char32_t c) {
  if (c <= 0xFF)
    append_format(out, "\\x%02x", c);
  else
    append_format(out, c <= 0xFFFF ? "\\u%04x" : "\\U%08x", c);
}

/// Digits with single underscores between them, without the underscores; nothing if that is not what the text is.
std::optional<std::string> digits(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_') continue;
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    out += text[i];
  }
  if (out.empty()) return std::nullopt;
  return out;
}

/// Without surrounding whitespace and sign.
std::string_view unsigned_part(const std::string& stripped, bool& negative) {
  std::string_view rest = stripped;
  negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  return rest;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

/// A decimal number without sign, as from_chars() reads it; nothing if float() rejects it.
std::optional<std::string> decimal(std::string_view text) {
  std::string out;
  const std::size_t e = text.find_first_of("eE");
  const std::string_view mantissa = text.substr(0, e);
  const std::size_t dot = mantissa.find('.');
  const std::string_view integral = mantissa.substr(0, dot);
  const std::string_view fraction = dot == mantissa.npos ? std::string_view() : mantissa.substr(dot + 1);
  if (integral.empty() && fraction.empty()) return std::nullopt;
  const auto integral_digits = integral.empty() ? std::string("0") : digits(integral);
  const auto fraction_digits = fraction.empty() ? std::string("0") : digits(fraction);
  if (!integral_digits || !fraction_digits) return std::nullopt;
  out = *integral_digits + "." + *fraction_digits;
  if (e == text.npos) return out;
  std::string_view exponent = text.substr(e + 1);
  std::string sign;
  if (exponent.starts_with('-') || exponent.starts_with('+')) {
    if (exponent[0] == '-') sign = "-";
    exponent.remove_prefix(1);
  }
  const auto exponent_digits = digits(exponent);
  if (!exponent_digits) return std::nullopt;
  return out + "e" + sign + *exponent_digits;
}

}  // namespace

bool is_python_space(char32_t c) { return is_space(c) || (c >= 0x1C && c <= 0x1F); }

std::size_t count_characters(std::string_view text) {
  charge_work(text.size());
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::size_t> character_offsets(std::string_view text) {
  charge_work(16 * text.size());
  std::vector<std::size_t> offsets;
  for (std::size_t at = 0; at < text.size(); at += char_length(text[at])) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

std::string python_upper(const std::string& text) {
  std::string out;
  each_character(text, [&](char32_t c) { append_upper(out, c); });
  return out;
}

std::string python_lower(const std::string& text) {
  charge_work(8 * text.size());
  if (text.find("\xCE\xA3") != text.npos) fail_unsupported("the lower case of 'Σ', which depends on its place");
  return lowercase(text);
}

std::string python_capitalize(const std::string& text) {
  if (text.empty()) return text;
  std::string out;
  append_title(out, char_at(text, 0));
  return out + python_lower(text.substr(char_length(text[0])));
}

std::string python_title(const std::string& text) {
  if (!is_ascii(text)) fail_unsupported("title() of text that is not ASCII");
  std::string out = python_lower(text);
  for (std::size_t i = 0; i < out.size(); ++i)
    if (out[i] >= 'a' && out[i] <= 'z' && (i == 0 || !std::isalpha(static_cast<unsigned char>(out[i - 1]))))
      out[i] = static_cast<char>(out[i] - 'a' + 'A');
  return out;
}

std::string jinja_title(const std::string& text) {
  const auto separates = [](char32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_python_space(c);
  };
  std::string out, word;
  const auto flush = [&] {
    if (word.empty()) return;
    append_upper(out, char_at(word, 0));
    out += python_lower(word.substr(char_length(word[0])));
    word.clear();
  };
  each_character(text, [&](char32_t c) {
    if (!separates(c)) return append_char(word, c);
    flush();
    append_char(out, c);
  });
  flush();
  return out;
}

std::string python_strip(const std::string& text, const std::optional<std::string>& characters, bool left, bool right) {
  charge_search(text.size(), characters ? characters->size() : 0);
  const auto belongs = [&](std::size_t at) {
    if (!characters) return is_python_space(char_at(text, at));
    return characters->find(text.substr(at, char_length(text[at]))) != characters->npos;
  };
  std::size_t begin = 0, end = text.size();
  while (left && begin < end && belongs(begin)) begin += char_length(text[begin]);
  while (right && end > begin && belongs(previous_character(text, end))) end = previous_character(text, end);
  return text.substr(begin, end - begin);
}

std::vector<std::string> python_split(const std::string& text, const std::optional<std::string>& separator,
                                      int64_t limit) {
  charge_work(64 * text.size());
  if (!separator) return split_at_spaces(text, limit);
  check_separator(text, *separator);
  std::vector<std::string> parts;
  std::size_t from = 0;
  for (std::size_t at; limit != 0 && (at = text.find(*separator, from)) != text.npos; --limit) {
    parts.push_back(text.substr(from, at - from));
    from = at + separator->size();
  }
  parts.push_back(text.substr(from));
  return parts;
}

std::vector<std::string> python_rsplit(const std::string& text, const std::optional<std::string>& separator,
                                       int64_t limit) {
  charge_work(64 * text.size());
  if (!separator) return rsplit_at_spaces(text, limit);
  check_separator(text, *separator);
  std::vector<std::string> parts;
  std::size_t end = text.size();
  for (; limit != 0 && end >= separator->size(); --limit) {
    const std::size_t at = text.rfind(*separator, end - separator->size());
    if (at == text.npos) break;
    parts.push_back(text.substr(at + separator->size(), end - at - separator->size()));
    end = at;
  }
  parts.push_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> python_splitlines(const std::string& text, bool keep_ends) {
  charge_work(64 * text.size());
  std::vector<std::string> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t next = at + char_length(text[at]);
    if (is_line_end(char_at(text, at))) {
      if (text[at] == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string python_replace(const std::string& text, const std::string& old, const std::string& with, int64_t limit) {
  charge_search(text.size(), old.size());
  std::string out;
  const auto add = [&](std::string_view part) {
    check_value_size(out.size() + part.size());
    out += part;
  };
  std::size_t from = 0;
  if (old.empty()) {
    for (; from < text.size() && limit != 0; from += char_length(text[from]), --limit) {
      add(with);
      add(std::string_view(text).substr(from, char_length(text[from])));
    }
    if (from == text.size() && limit != 0) add(with);
    add(std::string_view(text).substr(from));
    return out;
  }
  for (std::size_t at; limit != 0 && (at = text.find(old, from)) != text.npos; --limit) {
    add(std::string_view(text).substr(from, at - from));
    add(with);
    from = at + old.size();
  }
  out.append(text, from);
  return out;
}

std::string python_repr(const std::string& text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string out(1, quote);
  each_character(text, [&](char32_t c) {
    if (c == static_cast<char32_t>(quote) || c == '\\')
      out += {'\\', static_cast<char>(c)};
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (is_printable(c))
      append_char(out, c);
    else
      append_escape(out, c);
  });
  return out + quote;
}

std::string python_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::abs(number), std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  std::string all(1, text[0]);
  if (e > 2) all += text.substr(2, e - 2);
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  std::string out = std::signbit(number) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out += all.substr(0, 1) + (all.size() > 1 ? "." + all.substr(1) : "") + "e";
    append_format(out, exponent < 0 ? "-%02u" : "+%02u", static_cast<unsigned>(std::abs(exponent)));
    return out;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + all;
  const auto integral = static_cast<std::size_t>(exponent) + 1;
  if (all.size() <= integral) return out + all + std::string(integral - all.size(), '0') + ".0";
  return out + all.substr(0, integral) + "." + all.substr(integral);
}

std::string json_string(const std::string& text, bool ensure_ascii) {
  std::string out = "\"";
  const auto add_unit = [&](char32_t unit) { append_format(out, "\\u%04x", unit); };
  each_character(text, [&](char32_t c) {
    static const std::string escaped = "\"\\\n\r\t\f\b", names = "\"\\nrtfb";
    const std::size_t at = c < 0x80 ? escaped.find(static_cast<char>(c)) : escaped.npos;
    if (at != escaped.npos) {
      out += {'\\', names[at]};
    } else if (c < 0x20 || (ensure_ascii && c >= 0x7F && c <= 0xFFFF)) {
      add_unit(c);
    } else if (ensure_ascii && c > 0xFFFF) {
      add_unit(0xD800 + ((c - 0x10000) >> 10));
      add_unit(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      append_char(out, c);
    }
  });
  return out + "\"";
}

std::optional<int64_t> python_int(const std::string& text) {
  const std::string stripped = python_strip(text, std::nullopt, true, true);
  if (!is_ascii(stripped)) fail_unsupported("int() of text that is not ASCII");
  bool negative = false;
  const auto found = digits(unsigned_part(stripped, negative));
  if (!found) return std::nullopt;
  const std::string number = (negative ? "-" : "") + *found;
  int64_t parsed = 0;
  if (std::from_chars(number.data(), number.data() + number.size(), parsed).ec != std::errc())
    fail_unsupported("an integer beyond 64 bits");
  return parsed;
}

std::optional<double> python_float(const std::string& text) {
  const std::string stripped = python_strip(text, std::nullopt, true, true);
  if (!is_ascii(stripped)) fail_unsupported("float() of text that is not ASCII");
  bool negative = false;
  const std::string_view rest = unsigned_part(stripped, negative);
  double parsed = 0;
  if (equals_ignoring_case(rest, "inf") || equals_ignoring_case(rest, "infinity")) {
    parsed = INFINITY;
  } else if (equals_ignoring_case(rest, "nan")) {
    parsed = NAN;
  } else {
    const auto number = decimal(rest);
    if (!number) return std::nullopt;
    if (std::from_chars(number->data(), number->data() + number->size(), parsed).ec != std::errc())
      fail_unsupported("a float beyond the range of double");
  }
  return negative ? -parsed : parsed;
}

}  // namespace peft::text
