#include "apps/voucher/code_question.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "apps/voucher/code_service.hpp"
#include "apps/voucher/model.hpp"
#include "sluice/base/text.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

std::unexpected<Failure> bad(std::string detail) {
  return fail(FailureKind::invalid_argument, "bad_request", std::move(detail));
}

// What stands there, short.
std::string got(const Json& value) { return std::string(beginning_of(value.dump(-1, ' ', false, Json::error_handler_t::replace), 32)); }

// What of a question is not as expected.
struct Unexpected {
  std::string what;
};

const Json& field(const Json& object, const char* name, Json::value_t type, const char* expected, const std::string& where = {}) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end() || found->type() != type)
    throw Unexpected{fmt::format("{}{}: expected {}, got {}", where, name, expected,
                                 !object.is_object() || found == object.end() ? "nothing" : got(*found))};
  return *found;
}

// A misspelt member would be taken for one that is left out.
void known_members(const Json& object, std::initializer_list<std::string_view> known, const char* where = "") {
  if (!object.is_object()) return;
  for (const auto& [name, value] : object.items())
    if (std::ranges::find(known, name) == known.end())
      throw Unexpected{fmt::format("{}{}: unknown member; there are {}", where, beginning_of(name, 64), fmt::join(known, ", "))};
}

// A whole number, or one as text: protobuf's JSON mapping writes 64-bit integers so.
template <class T>
T whole(const Json& value, const char* name) {
  T number = 0;
  if (value.is_number_integer()) return value.get<T>();
  const std::string text = value.is_string() ? value.get<std::string>() : std::string();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    throw Unexpected{fmt::format("{}: expected a whole number, got {}", name, got(value))};
  return number;
}

}  // namespace

Result<CodeQuestion> CodeQuestion::parse(ByteView payload) {
  const Json json = Json::parse(payload, nullptr, false);
  if (!json.is_object()) return bad("expected an object with owner and vouchers");
  CodeQuestion asked;
  try {
    using Type = Json::value_t;
    known_members(json, {"owner", "store", "region", "vouchers", "count", "resume", "bypass_cache", "finished"});
    asked.holder.owner = field(json, "owner", Type::string, "the name of who leases, as text").get<std::string>();
    if (json.contains("store")) asked.holder.store = field(json, "store", Type::string, "the name of a store, as text").get<std::string>();
    if (json.contains("vouchers"))
      for (const auto& one : field(json, "vouchers", Type::array, "a list of voucher ids")) {
        if (!one.is_string()) throw Unexpected{"vouchers: expected a list of voucher ids, got " + got(one)};
        asked.vouchers.push_back(one.get<std::string>());
      }
    if (const auto count = json.find("count"); count != json.end()) asked.count = whole<std::int64_t>(*count, "count");
    if (json.contains("resume")) asked.resume = field(json, "resume", Type::boolean, "true or false").get<bool>();
    if (json.contains("bypass_cache")) asked.bypass_cache = field(json, "bypass_cache", Type::boolean, "true or false").get<bool>();
    if (json.contains("finished"))
      for (const auto& one : field(json, "finished", Type::array, "a list of finished segments")) {
        known_members(one, {"voucher", "first", "token"}, "finished: ");
        const auto voucher = field(one, "voucher", Type::string, "a voucher id", "finished: ").get<std::string>();
        asked.finished.push_back({voucher, whole<std::int64_t>(one.value("first", Json(0)), "finished: first"),
                                  whole<std::uint64_t>(one.value("token", Json()), "finished: token")});
      }
  } catch (const Unexpected& error) {
    return bad(error.what);
  }
  if (!valid_id(asked.holder.owner)) return bad("owner: expected 1 to 64 of A-Z a-z 0-9 - _ .");
  if (!asked.holder.store.empty() && !valid_id(asked.holder.store)) return bad("store: expected 1 to 64 of A-Z a-z 0-9 - _ .");
  if (asked.resume && asked.bypass_cache) return bad("resume: expected false beside bypass_cache, which leaves aside what the owner has");
  if (asked.vouchers.size() + asked.finished.size() > kMaxVouchersPerCall)
    return bad(fmt::format("vouchers: expected at most {}, got {}", kMaxVouchersPerCall, asked.vouchers.size()));
  if (asked.count < 1 || asked.count > kMaxCodesPerSegment)
    return bad(fmt::format("count: expected 1 to {}, got {}", kMaxCodesPerSegment, asked.count));
  for (const auto& id : asked.vouchers)
    if (!valid_id(id)) return bad("vouchers: expected ids of 1 to 64 of A-Z a-z 0-9 - _ .");
  for (const auto& one : asked.finished)
    if (!valid_id(one.voucher)) return bad("finished: expected vouchers with ids of 1 to 64 of A-Z a-z 0-9 - _ .");
  return asked;
}

}  // namespace sluice::voucher
