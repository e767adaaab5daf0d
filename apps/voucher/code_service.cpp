#include "apps/voucher/code_service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "voucher/v1/codes.pb.h"

#include "apps/voucher/rows.hpp"
#include "apps/voucher/segments.hpp"
#include "sluice/base/text.hpp"
#include "sluice/flow.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::voucher {
namespace {

using flow::Exchange;
using flow::Vote;
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

struct Asked {
  std::string owner;
  std::vector<std::string> vouchers;
  std::int64_t count = 100;
  bool resume = false;
  struct Finished {
    std::string voucher;
    std::int64_t first = 0;
    std::uint64_t token = 0;
  };
  std::vector<Finished> finished;

  static Result<Asked> parse(const Bytes& payload) {
    const Json json = Json::parse(payload, nullptr, false);
    if (!json.is_object()) return bad("expected an object with owner and vouchers");
    Asked asked;
    try {
      using Type = Json::value_t;
      asked.owner = field(json, "owner", Type::string, "the name of who leases, as text").get<std::string>();
      if (json.contains("vouchers"))
        for (const auto& one : field(json, "vouchers", Type::array, "a list of voucher ids")) {
          if (!one.is_string()) throw Unexpected{"vouchers: expected a list of voucher ids, got " + got(one)};
          asked.vouchers.push_back(one.get<std::string>());
        }
      if (const auto count = json.find("count"); count != json.end()) asked.count = whole<std::int64_t>(*count, "count");
      if (json.contains("resume")) asked.resume = field(json, "resume", Type::boolean, "true or false").get<bool>();
      if (json.contains("finished"))
        for (const auto& one : field(json, "finished", Type::array, "a list of finished segments")) {
          const auto voucher = field(one, "voucher", Type::string, "a voucher id", "finished: ").get<std::string>();
          asked.finished.push_back({voucher, whole<std::int64_t>(one.value("first", Json(0)), "finished: first"),
                                    whole<std::uint64_t>(one.value("token", Json()), "finished: token")});
        }
    } catch (const Unexpected& error) {
      return bad(error.what);
    }
    if (!valid_id(asked.owner)) return bad("owner: expected 1 to 64 of A-Z a-z 0-9 - _ .");
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
};

class CodeService final : public server::App {
 public:
  explicit CodeService(CodeServiceOptions options) : options_(options) {}
  std::string_view name() const noexcept override { return "codes"; }

  Status install(server::AppContext& context) override {
    store_ = &context.store;
    clock_ = &context.clock;
    faults_ = std::make_unique<Faults>(context.clock, context.random);
    faults_->set(options_.faults);
    flow::FlowOptions options;
    options.store = &context.store;
    options.ids = &context.ids;
    options.metrics = &context.metrics;
    options.log = &context.logger;
    options.max_reruns = 20;  // leases of one voucher meet each other
    flow_ = std::make_unique<flow::Flow>("voucher.code.lease", std::move(options));
    flow_->group("main", {flow::task_func("lease", [this](Exchange& x) { return lease(x); })});
    context.flows.add(*flow_);
    rpc::CommandSpec get;
    get.name = kGetCodes;
    get.summary = "Leases segments of codes to a distribution service.";
    get.app = "voucher";
    get.idempotency = rpc::KeyUse::required;
    get.keys.ttl = std::chrono::minutes(10);
    get.input_schema =
        R"({"type":"object","required":["owner"],"properties":{"owner":{"type":"string"},"region":{"type":"string"},)"
        R"("vouchers":{"type":"array","items":{"type":"string"}},"count":{"type":"integer"},"resume":{"type":"boolean"},)"
        R"("finished":{"type":"array"}}})";
    get.handler = faults_->around(rpc::flow_handler(*flow_));
    SLUICE_TRY(context.registry.add(std::move(get)));
    context.grpc.bind(
        ::voucher::v1::BatchGetCodeUsingCacheRequest::descriptor()->file()->service(0)->full_name() + "/BatchGetCodeUsingCache",
        std::string(kGetCodes));
    return faults_->add_commands(context.registry, "codes");
  }

 private:
  // What one voucher of a question gets.
  struct Given {
    std::string voucher;
    std::string universal;          // one code for all: there is nothing to lease
    std::vector<Segment> segments;  // none: nothing can be leased
    std::optional<milliseconds> leased;  // the first lease of another ends then
  };
  using Leases = std::map<std::string, Segments>;

  Task<Result<Vote>> lease(Exchange& x) {
    auto parsed = Asked::parse(x.request());
    if (!parsed) co_return fail(parsed.error());
    const Asked asked = *std::move(parsed);
    const std::string& ns = x.ns().text();
    const WallTime now = clock_->wall();
    // Rows are read all at once: a batch may name 500 vouchers.
    std::vector<store::KvKey> keys;
    for (const auto& voucher : asked.vouchers) keys.push_back(pool_key(ns, voucher));
    auto reading_pools = x.read_rows_task(std::move(keys));
    const auto pools = co_await reading_pools;
    if (!pools) co_return fail(pools.error());
    const auto named = leased_by(asked, *pools);
    std::vector<store::KvKey> wanted;
    for (const auto& voucher : named) wanted.push_back(segment_key(ns, voucher));
    auto reading = x.read_rows_task(std::move(wanted), flow::Read::verified);
    const auto rows = co_await reading;
    if (!rows) co_return fail(rows.error());
    auto decoded = decode(named, *rows);
    if (!decoded) co_return fail(decoded.error());
    Leases leases = *std::move(decoded);
    std::set<std::string> changed;
    const auto given = give(asked, *pools, leases, changed, now);
    std::string segments;
    for (const auto& one : given) {
      auto describing = describe(ns, one);
      const auto text = co_await describing;
      if (!text) co_return fail(text.error());
      segments += (segments.empty() ? "" : ",") + *text;
    }
    for (const auto& voucher : changed) x.draft().put(segment_key(ns, voucher), leases[voucher].encode());
    x.respond(Reply::ok(fmt::format(R"({{"lease_ms":{},"segments":[{}]}})", options_.lease.count(), segments)));
    co_return Vote();
  }

  static bool universal(const std::optional<store::KvRow>& pool) { return pool && !pool->value.empty(); }

  // The vouchers whose segments are looked at.
  static std::set<std::string> leased_by(const Asked& asked, const std::vector<std::optional<store::KvRow>>& pools) {
    std::set<std::string> named;
    for (const auto& done : asked.finished) named.insert(done.voucher);
    for (std::size_t i = 0; i < asked.vouchers.size(); ++i)
      if (!universal(pools[i])) named.insert(asked.vouchers[i]);
    return named;
  }

  static Result<Leases> decode(const std::set<std::string>& named, const std::vector<std::optional<store::KvRow>>& rows) {
    Leases leases;
    std::size_t at = 0;
    for (const auto& voucher : named) {
      const auto& row = rows[at++];
      SLUICE_ASSIGN(leases[voucher], Segments::decode(row ? ByteView(row->value) : ByteView()));
    }
    return leases;
  }

  std::vector<Given> give(const Asked& asked, const std::vector<std::optional<store::KvRow>>& pools, Leases& leases,
                          std::set<std::string>& changed, WallTime now) const {
    for (const auto& done : asked.finished)
      if (leases[done.voucher].finish(asked.owner, done.first, done.token)) changed.insert(done.voucher);
    std::vector<Given> all;
    std::int64_t room = kMaxCodesPerAnswer;
    const std::int64_t count = std::min(asked.count, std::max<std::int64_t>(1, kMaxCodesPerAnswer / std::max<std::int64_t>(1, std::ssize(asked.vouchers))));
    for (std::size_t i = 0; i < asked.vouchers.size(); ++i) {
      Given given;
      given.voucher = asked.vouchers[i];
      if (universal(pools[i])) {
        given.universal = pools[i]->value;
        all.push_back(std::move(given));
        continue;
      }
      Segments& of = leases[given.voucher];
      if (asked.resume) given.segments = of.resume(asked.owner, now + options_.lease, room);
      if (given.segments.empty()) {
        if (auto fresh = of.lease(asked.owner, pools[i] ? pools[i]->number : 0, count, now, now + options_.lease, std::max(room, count)))
          given.segments.push_back(*std::move(fresh));
      }
      if (!given.segments.empty()) changed.insert(given.voucher);
      if (const auto end = of.first_end(); end && given.segments.empty()) given.leased = std::max(milliseconds(0), *end - now);
      for (const auto& segment : given.segments) room -= segment.count;
      all.push_back(std::move(given));
    }
    return all;
  }

  Task<Result<std::string>> describe(std::string ns, Given given) {
    if (!given.universal.empty()) co_return fmt::format(R"({{"voucher":"{}","universal":"{}"}})", given.voucher, given.universal);
    if (given.segments.empty()) {
      const std::string leased = given.leased ? fmt::format(R"(,"leased_ms":{})", given.leased->count()) : std::string();
      co_return fmt::format(R"({{"voucher":"{}","none":true{}}})", given.voucher, leased);
    }
    std::string out;
    for (const auto& segment : given.segments) {
      // Codes never change once they are imported: they need no part in the snapshot.
      store::ListRows query{.ns = ns,
                            .collection = std::string(kCodes),
                            .prefix = given.voucher + "/",
                            .after = segment.first == 0 ? "" : ordinal_key(given.voucher, segment.first - 1),
                            .limit = static_cast<std::size_t>(segment.count)};
      auto asking = store::ask(*store_, std::move(query));
      const auto codes = co_await asking;
      if (!codes) co_return fail(codes.error());
      out += fmt::format(R"({}{{"voucher":"{}","first":{},"token":{},"codes":[)", out.empty() ? "" : ",", given.voucher,
                         segment.first, segment.token);
      bool first = true;
      for (const auto& item : *codes) {
        out += fmt::format(R"({}"{}")", first ? "" : ",", item.row.value);
        first = false;
      }
      out += "]}";
    }
    co_return out;
  }

  const CodeServiceOptions options_;
  store::Store* store_ = nullptr;
  Clock* clock_ = nullptr;
  std::unique_ptr<Faults> faults_;
  std::unique_ptr<flow::Flow> flow_;
};

}  // namespace

std::unique_ptr<server::App> make_code_service(CodeServiceOptions options) {
  return std::make_unique<CodeService>(options);
}

}  // namespace sluice::voucher
