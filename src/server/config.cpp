#include "sluice/server/config.hpp"

#include "sluice/base/toml_assert.hpp"  // before toml++

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "sluice/base/files.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/base/spelling.hpp"

extern "C" char** environ;

namespace sluice::server {

namespace {

const ConfigKey* find_key(std::string_view name) {
  for (const auto& key : config_keys())
    if (key.name == name) return &key;
  // channels.NAME.field
  if (!name.starts_with("channels.")) return nullptr;
  const auto channel = name.substr(9, name.find('.', 9) - 9);
  if (channel.size() + 9 >= name.size() || channel == "NAME") return nullptr;
  for (const auto& key : channel_keys(channel))
    if (key.name == name) return &key;
  return nullptr;
}

// Of a channel that need not be in the file: "SLUICE_CHANNELS_CODES_TARGET".
const ConfigKey* find_variable(std::string_view variable, const Config& config) {
  for (const auto& key : config_keys())
    if (key.environment() == variable) return &key;
  constexpr std::string_view kPrefix = "SLUICE_CHANNELS_";
  if (!variable.starts_with(kPrefix)) return nullptr;
  // A name with a dash is known from the file alone: the environment has one character for both.
  for (const auto& [name, channel] : config.channels)
    for (const auto& key : channel_keys(name))
      if (key.environment() == variable) return &key;
  for (const auto& field : channel_keys("NAME")) {
    const std::string ending = field.environment().substr(kPrefix.size() + 4);  // without NAME
    if (!variable.ends_with(ending) || variable.size() <= kPrefix.size() + ending.size()) continue;
    std::string name;
    for (const char c : variable.substr(kPrefix.size(), variable.size() - kPrefix.size() - ending.size()))
      name += c == '_' ? '-' : static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    for (const auto& key : channel_keys(name))
      if (key.environment() == variable) return &key;
  }
  return nullptr;
}

std::string expected(const ConfigKey& key) {
  std::string text(key_type_name(key.type));
  if (key.type == KeyType::integer)
    text += " from " + std::to_string(key.minimum) + " to " + std::to_string(key.maximum);
  return text;
}

// Empty: taken; else what was expected.
std::string take(Config& config, const ConfigKey& key, const std::string& text) {
  if (key.type == KeyType::integer) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || at != end || value < key.minimum || value > key.maximum)
      return expected(key);
  }
  if (key.type == KeyType::boolean && text != "true" && text != "false") return "true or false";
  return key.set(config, text);
}

constexpr std::size_t kConfigBytesMax = 1 << 20;

struct Problems {
  std::string_view file;
  std::string all;
  void add(std::size_t line, const std::string& what) {
    if (!all.empty()) all += '\n';
    all += std::string(file) + ":" + std::to_string(line) + ": " + what;
  }
  void add_text(const std::string& what) { all += (all.empty() ? "" : "\n") + what; }
};

// An address may hold a password.
std::string shown(const std::string& text) {
  return text.find("://") == std::string::npos ? text : store::without_password(text);
}

std::string nearest(std::string_view name) {
  // The key with the same last word, if there is one: most mistakes are a wrong table.
  const auto word = name.substr(name.rfind('.') + 1);
  std::vector<std::string> names;
  for (const auto& key : config_keys()) {
    if (key.name.substr(key.name.find('.') + 1) == word)
      return "; did you mean '" + std::string(key.name) + "'?";
    names.emplace_back(key.name);
  }
  if (const auto near = nearest_word(name, names); !near.empty()) return "; did you mean '" + near + "'?";
  return "; `sluice config show` lists all keys";
}

// "http" of "http.port".
bool is_table(std::string_view name) {
  if (name == "channels" || (name.starts_with("channels.") && name.find('.', 9) == std::string_view::npos)) return true;
  const std::string begin = std::string(name) + ".";
  return std::ranges::any_of(config_keys(), [&](const ConfigKey& key) { return key.name.starts_with(begin); });
}

struct Value {
  std::string text, shown;
  std::optional<KeyType> type;  // none: of no kind that a key has
};
Value value_of(const toml::node& node) {
  if (const auto* s = node.as_string()) return {s->get(), "text \"" + shown(s->get()) + "\"", KeyType::text};
  if (const auto* i = node.as_integer()) return {std::to_string(i->get()), "integer " + std::to_string(i->get()), KeyType::integer};
  if (const auto* b = node.as_boolean()) return {b->get() ? "true" : "false", b->get() ? "boolean true" : "boolean false", KeyType::boolean};
  return {{}, node.is_table() ? "a table" : node.is_array() ? "a list" : node.is_floating_point() ? "a number with a point" : "a date or time", {}};
}

void read_table(const toml::table& table, const std::string& prefix, Config& config,
                Problems& problems) {
  for (const auto& [name, node] : table) {
    const std::string full = prefix + std::string(name.str());
    const std::size_t line = node.source().begin.line;
    if (const auto* inner = node.as_table(); inner != nullptr && find_key(full) == nullptr) {
      read_table(*inner, full + ".", config, problems);
      continue;
    }
    const ConfigKey* key = find_key(full);
    const Value value = value_of(node);
    if (key == nullptr && is_table(full)) {
      problems.add(line, "'" + full + "': expected a table ([" + full + "] on a line of its own), got " + value.shown);
      continue;
    }
    if (key == nullptr) {
      problems.add(line, "unknown key '" + full + "'" + nearest(full));
      continue;
    }
    const std::string wanted = value.type == key->type ? take(config, *key, value.text) : expected(*key);
    if (!wanted.empty())
      problems.add(line, "key '" + full + "': expected " + wanted + ", got " + value.shown);
    config.places[full] = std::string(problems.file) + ":" + std::to_string(line);
  }
}

// Of the command line, and no configuration.
constexpr std::string_view kOtherVariables[] = {
    "SLUICE_CONFIG",       "SLUICE_TOKEN",      "SLUICE_SERVER",     "SLUICE_APPS",       "SLUICE_CODE_SERVICE",
    "SLUICE_USER_SERVICE", "SLUICE_CODE_TOKEN", "SLUICE_USER_TOKEN", "SLUICE_SERVICE_CA", "SLUICE_OWNER",
    "SLUICE_GRPC"};

std::string unknown_variable(const std::string& variable) {
  std::vector<std::string> names(std::begin(kOtherVariables), std::end(kOtherVariables));
  for (const auto& key : config_keys()) names.push_back(key.environment());
  const std::string near = nearest_word(variable, names);
  return "environment: unknown variable '" + variable + "', which changes nothing" +
         (near.empty() ? "; docs/reference.md lists all" : "; did you mean '" + near + "'?");
}

void read_environment(const Environment& env, Config& config, Problems& problems) {
  for (const auto& [variable, value] : env) {
    if (!variable.starts_with("SLUICE_") || std::ranges::find(kOtherVariables, variable) != std::end(kOtherVariables)) continue;
    const ConfigKey* found = find_variable(variable, config);
    if (found == nullptr) {
      config.warnings.push_back(unknown_variable(variable));
      continue;
    }
    if (const auto wanted = take(config, *found, value); !wanted.empty())
      problems.add_text("environment: " + variable + ": expected " + wanted + ", got '" + shown(value) + "'");
    config.places[std::string(found->name)] = "environment: " + variable;
  }
}

}  // namespace

Environment process_environment() {
  Environment env;
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    const std::string_view pair(*at);
    if (!pair.starts_with("SLUICE_")) continue;
    const auto equals = pair.find('=');
    env.emplace(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return env;
}

Result<Config> parse_config(std::string_view text, std::string_view file, const Environment& env) {
  Config config;
  Problems problems{file, {}};
  try {
    read_table(toml::parse(text, file), "", config, problems);
  } catch (const toml::parse_error& error) {
    problems.add(error.source().begin.line, "not TOML: " + std::string(error.description()));
  } catch (const TomlAssertion& error) {
    const auto parse = [](std::string_view part) { static_cast<void>(toml::parse(part)); };
    problems.add(line_of_assertion(text, parse), "not TOML: " + std::string(error.what()));
  }
  read_environment(env, config, problems);
  if (!problems.all.empty())
    return fail(FailureKind::invalid_argument, "bad_config", std::move(problems.all));
  return config;
}

Result<Config> load_config(const std::string& path, const Environment& env) {
  if (path.empty()) return parse_config("", "(defaults)", env);
  RealFiles files;
  auto file = files.open(path, OpenMode::read);
  if (!file)
    return fail(FailureKind::not_found, "no_config",
                file.error().detail().empty() ? "configuration " + path + " cannot be read"
                                              : std::string(file.error().detail()));
  const auto size = (*file)->size();
  if (!size) return fail(size.error().at("reading " + path));
  if (*size > kConfigBytesMax)
    return fail(FailureKind::too_large, "config_too_large", path + ": longer than 1 MiB");
  std::string text(static_cast<std::size_t>(*size), '\0');
  const auto read = (*file)->read_at(0, text.data(), text.size());
  if (!read) return fail(read.error().at("reading " + path));
  text.resize(*read);
  return parse_config(text, path, env);
}

std::string show_config(const Config& config) {
  std::string out;
  std::string table;
  const auto show = [&](const ConfigKey& key) {
    const auto dot = key.name.rfind('.');
    if (const std::string now(key.name.substr(0, dot)); now != table) {
      if (!table.empty()) out += '\n';
      out += "[" + now + "]\n";
      table = now;
    }
    std::string value = key.get(config);
    if (key.type == KeyType::text) {
      std::string escaped = "\"";
      for (const char c : value) {
        if (c == '"' || c == '\\') escaped += '\\';
        escaped += c;
      }
      value = escaped + "\"";
    }
    out += std::string(key.name.substr(dot + 1)) + " = " + value + "  # " +
           std::string(key.meaning) + "\n";
  };
  for (const auto& key : config_keys()) show(key);
  for (const auto& [name, channel] : config.channels)
    for (const auto& key : channel_keys(name)) show(key);
  return out;
}

std::string config_reference() {
  std::string out = "| key | type | default | meaning | environment |\n|---|---|---|---|---|\n";
  const Config defaults;
  const auto row = [&](const ConfigKey& key) {
    out += "| `" + std::string(key.name) + "` | " + expected(key) + " | `" + key.get(defaults) +
           "` | " + std::string(key.meaning) + " | `" + key.environment() + "` |\n";
  };
  for (const auto& key : config_keys()) row(key);
  for (const auto& key : channel_keys("NAME")) row(key);
  return out;
}

}  // namespace sluice::server
