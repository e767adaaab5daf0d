#include "apps/voucher/segment_commands.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/voucher/rows.hpp"
#include "apps/voucher/segments.hpp"
#include "sluice/base/text.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::voucher {
namespace {

using flow::Exchange;
using flow::Vote;
using Json = nlohmann::json;

constexpr std::size_t kMaxVouchers = 500;   // looked at by one question
constexpr std::size_t kMaxSegments = 5000;  // of one answer, or those of one voucher beyond

std::unexpected<Failure> bad(std::string detail) {
  return fail(FailureKind::invalid_argument, "bad_request", std::move(detail));
}

flow::FlowOptions options_of(server::AppContext& context) {
  flow::FlowOptions options;
  options.store = &context.store;
  options.ids = &context.ids;
  options.metrics = &context.metrics;
  options.log = &context.logger;
  options.max_reruns = 20;  // leases of these vouchers go on
  return options;
}

/// Which segments, of which vouchers, and what of them.
struct Asked {
  Which which;
  std::string to, after;
  bool withdraw = false, overdue = false;
  std::size_t limit = kMaxVouchers;

  static Result<Asked> parse(ByteView payload, std::initializer_list<std::string_view> known) {
    const Json json = Json::parse(payload, nullptr, false);
    if (!json.is_object()) return bad(fmt::format("expected an object with {}", fmt::join(known, ", ")));
    Asked asked;
    for (const auto& [name, value] : json.items()) {
      const auto wrong = [&](const char* expected) {
        return bad(fmt::format("{}: expected {}, got {}", beginning_of(name, 64), expected,
                               beginning_of(value.dump(-1, ' ', false, Json::error_handler_t::replace), 64)));
      };
      if (std::ranges::find(known, name) == known.end())
        return bad(fmt::format("{}: unknown member; there are {}", beginning_of(name, 64), fmt::join(known, ", ")));
      if (name == "withdraw" || name == "overdue") {
        if (!value.is_boolean()) return wrong("true or false");
        (name == "withdraw" ? asked.withdraw : asked.overdue) = value.get<bool>();
      } else if (name == "limit") {
        if (!value.is_number_integer() || value < 1 || value > kMaxVouchers) return wrong("1 to 500 vouchers");
        asked.limit = value.get<std::size_t>();
      } else {
        if (!value.is_string() || !valid_id(value.get_ref<const std::string&>())) return wrong("1 to 64 of A-Z a-z 0-9 - _ .");
        (name == "store"   ? asked.which.store
         : name == "owner" ? asked.which.owner
         : name == "to"    ? asked.to
                           : asked.after) = value.get<std::string>();
      }
    }
    return asked;
  }
  /// The rows of the vouchers after `after`, and one more: whether there is a next page.
  store::ListRows rows(const std::string& ns) const {
    return {.ns = ns, .collection = std::string(kSegments), .prefix = "", .after = after, .limit = limit + 1};
  }
};

Json described(const std::string& voucher, const Segment& s, WallTime now) {
  return {{"voucher", voucher},        {"first", s.first},       {"count", s.count},
          {"store", s.holder.store},   {"owner", s.holder.owner}, {"token", s.token},
          {"lease_ms", std::max<std::int64_t>(0, (s.expires - now).count())},
          {"overdue_ms", std::max<std::int64_t>(0, (now - s.expires).count())}};
}

}  // namespace

SegmentCommands::SegmentCommands(server::AppContext& context)
    : store_(context.store), free_("voucher.code.segments.free", options_of(context)) {
  free_.group("main", {flow::task_func("free", [this](Exchange& x) { return free(x); })});
}

Status SegmentCommands::add(server::AppContext& context) {
  context.flows.add(free_);
  rpc::CommandSpec list;
  list.name = "voucher.code.segments.list";
  list.summary = "Which segments of codes are leased to whom, and which leases are over without a word.";
  list.app = "voucher";
  list.idempotency = rpc::KeyUse::none;
  list.input_schema =
      R"({"type":"object","additionalProperties":false,"properties":{"store":{"type":"string"},"owner":{"type":"string"},)"
      R"("overdue":{"type":"boolean"},"after":{"type":"string","description":"a voucher: those after it"},)"
      R"("limit":{"type":"integer","minimum":1,"maximum":500}}})";
  list.handler = [this](rpc::Invocation& invocation) { invocation.run_task(this->list(invocation)); };
  SLUICE_TRY(context.registry.add(std::move(list)));
  rpc::CommandSpec free;
  free.name = "voucher.code.segments.free";
  free.summary = "Takes segments from a store: for another that has its assignments, or for nobody.";
  free.app = "voucher";
  free.idempotency = rpc::KeyUse::required;
  free.input_schema =
      R"({"type":"object","additionalProperties":false,"properties":{"store":{"type":"string"},"owner":{"type":"string"},)"
      R"("to":{"type":"string","description":"the store that has their assignments"},"withdraw":{"type":"boolean",)"
      R"("description":"their codes go to nobody"},"after":{"type":"string","description":"a voucher: those after it"},)"
      R"("limit":{"type":"integer","minimum":1,"maximum":500}}})";
  free.handler = rpc::flow_handler(free_);
  return context.registry.add(std::move(free));
}

Task<rpc::Answer> SegmentCommands::list(rpc::Invocation& invocation) {
  const auto asked = Asked::parse(invocation.command.payload, {"store", "owner", "overdue", "after", "limit"});
  if (!asked) co_return rpc::Answer::of(asked.error());
  store::ListRows query = asked->rows(invocation.command.ns.text());
  auto asking = store::ask(store_, std::move(query));
  const auto rows = co_await asking;
  if (!rows) co_return rpc::Answer::of(rows.error());
  const WallTime now = store_.now();
  Json body{{"segments", Json::array()}};
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const auto& item = (*rows)[i];
    if (i == asked->limit || body["segments"].size() >= kMaxSegments) {
      body["next"] = (*rows)[i - 1].key.key;
      break;
    }
    const auto segments = Segments::decode(item.row.value);
    if (!segments) co_return rpc::Answer::of(segments.error());
    for (const auto& s : segments->all())
      if (fits(s, asked->which) && (!asked->overdue || s.expires <= now)) body["segments"].push_back(described(item.key.key, s, now));
  }
  const Reply reply = Reply::ok(body.dump());
  co_return rpc::Answer::of(reply);
}

Task<Result<Vote>> SegmentCommands::free(Exchange& x) {
  const auto asked = Asked::parse(x.request(), {"store", "owner", "to", "withdraw", "after", "limit"});
  if (!asked) co_return fail(asked.error());
  if (asked->which == Which()) co_return bad("store, owner: expected one of them or both: whose segments");
  if (asked->withdraw == !asked->to.empty())
    co_return bad("expected either to, the store that has their assignments, or withdraw: true, and their codes go to nobody");
  const std::string& ns = x.ns().text();
  store::ListRows query = asked->rows(ns);
  auto asking = store::ask(store_, std::move(query));
  const auto listed = co_await asking;
  if (!listed) co_return fail(listed.error());
  const bool more = listed->size() > asked->limit;
  std::vector<store::KvKey> keys;
  for (std::size_t i = 0; i < listed->size() - more; ++i) keys.push_back((*listed)[i].key);
  const std::vector<store::KvKey> named = keys;
  auto reading = x.read_rows_task(std::move(keys), flow::Read::verified);
  const auto rows = co_await reading;
  if (!rows) co_return fail(rows.error());
  std::size_t count = 0;
  std::int64_t codes = 0;
  for (std::size_t i = 0; i < named.size(); ++i) {
    if (!(*rows)[i]) continue;
    auto segments = Segments::decode((*rows)[i]->value);
    if (!segments) co_return fail(segments.error());
    const auto taken = segments->free(asked->which, asked->to);
    for (const auto& s : taken) codes += s.count;
    count += taken.size();
    if (!taken.empty()) x.draft().put(named[i], segments->encode());
  }
  Json body{{"segments", count}, {"codes", codes}};
  if (more) body["next"] = named.back().key;
  x.respond(Reply::ok(body.dump()));
  co_return Vote();
}

}  // namespace sluice::voucher
