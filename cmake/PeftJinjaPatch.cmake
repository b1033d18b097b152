# The engine trusts its templates; ours come from strangers. Here its sources learn to count what they use up in
# framework/src/text/chat_template/template_meter.h. Every text to be replaced must be found, so that a new version of the engine is
# looked at.

# Replaces `old` by `new` in the caller's variable `engine`, the text of `file`.
function(peft_replace old new)
  string(FIND "${engine}" "${old}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "${file}: what is to be patched is not there: ${old}")
  endif()
  string(REPLACE "${old}" "${new}" engine "${engine}")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_insert_before place text)
  peft_replace("${place}" "${text}\n${place}")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_insert_after place text)
  peft_replace("${place}" "${place}\n${text}")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_utils_h)
  peft_replace("#include <string>\n" "#include <string>\n#include \"text/chat_template/template_meter.h\"\n")
  peft_insert_before("        builder.append(replace);"
                     "        peft::text::limit_value(builder.size() + replace.size());")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_string_h)
  peft_replace("    std::string val;\n" "    std::string val;\n    peft::text::Held held{val.size()};\n")
  peft_replace("std::vector<string_part> parts;"
               "std::vector<string_part, peft::text::MeteredAllocator<string_part>> parts;")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_string_cpp)
  # one part and not a million of a few letters; letters at the border are then capitalised as in Python, too
  peft_replace("        parts.push_back(part);"
               "        if (parts.empty() || parts.back().is_input != part.is_input) {
            parts.push_back(part);
            continue;
        }
        parts.back().held.grow(part.val.size());
        parts.back().val += part.val;")
  set(look "    peft::text::spend(32 + length());")
  peft_insert_after("std::string string::str() const {" "${look}")
  peft_insert_after("size_t string::length() const {" "    peft::text::spend(8 * parts.size());")
  peft_insert_after("bool string::is_uppercase() const {" "${look}")
  peft_insert_after("bool string::is_lowercase() const {" "${look}")
  peft_insert_before("    if (parts.empty()) {\n        return *this;"
                     "    peft::text::spend_search(length(), chars ? chars->size() : 0);")
  peft_insert_before("                parts.erase(parts.begin() + i);"
                     "                peft::text::spend(64 * (parts.size() - i));")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_value_h)
  peft_replace("std::vector<value>" "value_list")
  peft_replace("std::vector<std::pair<value, value>>" "value_pairs")
  peft_replace("    return std::make_shared<PointeeType>(std::forward<Args>(args)...)"
               "    return std::allocate_shared<PointeeType>(peft::text::MeteredAllocator<PointeeType>(), std::forward<Args>(args)...)")
  peft_replace("using value = std::shared_ptr<value_t>;"
               "using value = std::shared_ptr<value_t>;
using value_list = std::vector<value, peft::text::MeteredAllocator<value>>;
using value_pairs = std::vector<std::pair<value, value>, peft::text::MeteredAllocator<std::pair<value, value>>>;")
  peft_replace("std::unordered_map<value, value, value_hasher, value_equivalence>"
               "std::unordered_map<value, value, value_hasher, value_equivalence, peft::text::MeteredAllocator<std::pair<const value, value>>>")
  peft_replace("struct value_t {" "struct value_t : peft::text::Listed {")
  peft_replace("virtual ~value_t() = default;"
               "virtual ~value_t() { peft::text::destroy_flat<value>(val_arr, val_obj); }")
  set(nested "        peft::text::Nested nested;")
  peft_insert_before("        const bool immutable = is_immutable();\n        std::ostringstream ss;" "${nested}")
  peft_insert_after("            if (i > 0) ss << \", \";" "            peft::text::limit_value(ss.tellp());")
  peft_insert_before("        std::ostringstream ss;\n        ss << \"{\";" "${nested}")
  peft_insert_before("        if (std::all_of(" "${nested}")
  # what is hashed was asked for this before, and hashing must not throw
  peft_replace("return val->is_immutable() && val->is_hashable();"
               "peft::text::spend(128 + val->val_str.length());\n            return val->is_immutable() && val->is_hashable();")
  peft_replace("return type(); }\n    virtual bool is_hashable() const override { return true; }"
               "return type(); }\n    virtual bool is_hashable() const override { return val->is_immutable() && val->is_hashable(); }")
  peft_insert_after("virtual bool has_key(const value & key) override {"
                    "        peft::text::spend(256 + key->val_str.length());")
  peft_insert_before("            unordered[pair.first] = pair.second;"
                     "            peft::text::spend(256 + pair.first->val_str.length());")
  peft_replace("as_array() const override { return val_arr; }"
               "as_array() const override { peft::text::spend(4 * val_arr.size()); return val_arr; }")
  peft_replace("as_ordered_object() const override { return val_obj; }"
               "as_ordered_object() const override { peft::text::spend(4 * val_obj.size()); return val_obj; }")
  peft_insert_before("            for (auto & pair : val_obj) {\n                if (*(pair.first) == *key) {"
                     "            peft::text::spend(4 * val_obj.size());")
  peft_insert_before("        val_arr.erase(val_arr.begin() + index);" "        peft::text::spend(16 * val_arr.size());")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_value_cpp)
  peft_replace("std::vector<value>" "value_list")
  peft_insert_after("static void value_to_json_internal(std::ostringstream & oss, const value & val, int curr_lvl, int indent, const std::string_view item_sep, const std::string_view key_sep) {"
                    "    peft::text::Nested nested;\n    peft::text::limit_value(oss.tellp());")
  peft_insert_after("bool value_compare(const value & a, const value & b, value_compare_op op) {" "    peft::text::spend(256);")
  peft_insert_before("                    if (*needle == *item) {" "                    peft::text::spend(64);")
  # letter by letter
  peft_insert_before("        for (char c : val->as_string().str()) {" "        peft::text::spend(8 * val->val_str.length());")
  peft_insert_before("    output.reserve(json_str.size());" "    peft::text::spend(4 * json_str.size());")
  peft_insert_before("    if (val_sort->as_bool()) {" "    peft::text::limit_product(1000, indent < 0 ? 0 : indent);")
  # by a text of its own; shifting the rest each time takes time squared
  peft_replace("                    while ((pos = str.find(old_str, pos)) != std::string::npos) {
                        str.replace(pos, old_str.length(), new_str);
                        pos += new_str.length();
                    }" "                    string_replace_all(str, old_str, new_str);")
  peft_insert_before("                    new_res.reserve(" "                    peft::text::limit_product(new_str.length(), str.length() + 1);")
  peft_insert_before("            if (old_str != new_str) {" "            peft::text::spend_search(str.length(), old_str.length());")
  peft_replace("            while ((pos = str.find(delim)) "
               "            size_t from = 0;
            peft::text::spend_search(str.length(), delim.length());
            while ((pos = str.find(delim, from)) ")
  peft_replace("                token = str.substr(0, pos);" "                token = str.substr(from, pos - from);")
  peft_replace("                str.erase(0, pos + delim.length());\n                --maxsplit;\n            }"
               "                from = pos + delim.length();\n                --maxsplit;\n            }\n            str.erase(0, from);")
  peft_insert_before("            while ((pos = str.rfind(delim))" "            peft::text::spend_search(str.length(), delim.length());")
  peft_insert_before("                return mk_val<value_bool>(\n                    haystack->as_string().str().find("
                     "                peft::text::spend_search(haystack->val_str.length(), needle->val_str.length());")
  peft_replace("indent.assign(val_width->as_int(), ' ');"
               "peft::text::limit_value(val_width->as_int());\n                indent.assign(val_width->as_int(), ' ');")
  peft_insert_before("                if (!indented.empty()) {" "                peft::text::limit_value(indented.size() + indent.size() + line.size());")
  peft_insert_before("                result += val_arr->as_string().str();"
                     "                peft::text::limit_value(result.size() + val_arr->val_str.length() + delim.size());")
  # an order that contradicts itself, as of 10, '9' and 9, leads std::sort out of its array
  peft_replace("std::sort(" "std::stable_sort(")
  peft_insert_before("            bool res = args.get_pos(0)->val_int % args.get_pos(1)->val_int == 0;"
                     "            if (args.get_pos(1)->val_int == 0) throw raised_exception(\"division by zero\");
            if (args.get_pos(1)->val_int == -1) return mk_val<value_bool>(true);")
  peft_replace("std::localtime(" "std::gmtime(")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_runtime_h)
  peft_insert_after("static void gather_string_parts_recursive(const value & val, value_string & parts) {"
                    "    peft::text::Nested nested;")
  peft_replace("auto items = cast_val<value_array>(val)->as_array();" "const auto & items = cast_val<value_array>(val)->as_array();")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

function(peft_patch_runtime_cpp)
  peft_replace("std::vector<value>" "value_list")
  peft_replace("        return execute_impl(ctx);" "        peft::text::Nested nested;\n        return execute_impl(ctx);")
  peft_replace("    } catch (const not_implemented_exception & /* ex */) {"
               "    } catch (const std::bad_alloc & /* ex */) {\n        throw;\n    } catch (const not_implemented_exception & /* ex */) {")
  # copied for each name and filter
  peft_replace("auto builtins = global_builtins();" "const auto & builtins = global_builtins();")
  peft_replace("auto builtins = input->get_builtins();" "const auto & builtins = input->get_builtins();")
  peft_insert_before("        for (int64_t i = 0; i < repeat; ++i) {" "        peft::text::limit_product(str.length(), repeat);")
  peft_replace("std::vector<std::function<void(context &)>> scope_update_fns;"
               "peft::text::limit_items(items.size());
    std::vector<std::function<void(context &)>, peft::text::MeteredAllocator<std::function<void(context &)>>> scope_update_fns;")
  set(engine "${engine}" PARENT_SCOPE)
endfunction()

# Writes the engine's sources of the folder `from`, patched, to the folder `to`.
function(peft_patch_jinja from to)
  file(GLOB files RELATIVE ${from} ${from}/*.h ${from}/*.cpp)
  foreach(file IN LISTS files)
    file(READ ${from}/${file} engine)
    string(REPLACE "." "_" name ${file})
    if(COMMAND peft_patch_${name})
      cmake_language(CALL peft_patch_${name})
    endif()
    file(CONFIGURE OUTPUT ${to}/${file} CONTENT "${engine}" @ONLY)
  endforeach()
endfunction()
