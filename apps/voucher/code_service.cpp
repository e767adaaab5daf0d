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

// What of a question is not as expected.
struct Unexpected {
  std::string what;
};

const Json& field(const Json& object, const char* name, Json::value_t type, const char* expected, const std::string& where = {}) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (!object.is_object() || found == object.end() || found->type() != type)
    throw Unexpected{fmt::format("{}{}: expected {}, got {}", where, name, expected,
                                 !object.is_object() || found == object.end() ? "nothing" : found->dump().substr(0, 32))};
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
    throw Unexpected{fmt::format("{}: expected a whole number, got {}", name, value.dump().substr(0, 32))};
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
          if (!one.is_string()) throw Unexpected{"vouchers: expected a list of voucher ids, got " + one.dump().substr(0, 32)};
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
    flow_->group("main", {flow::func("lease", [this](Exchange& x) { return lease(x); })});
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
  Result<Vote> lease(Exchange& x) {
    SLUICE_ASSIGN(const Asked asked, Asked::parse(x.request()));
    const std::string& ns = x.ns().text();
    const WallTime now = clock_->wall();
    // Rows are read all at once: a batch may name 500 vouchers.
    std::vector<store::KvKey> keys;
    for (const auto& voucher : asked.vouchers) keys.push_back(pool_key(ns, voucher));
    SLUICE_ASSIGN(const auto pools, x.read_rows(keys));
    // One code for all: there is nothing to lease.
    const auto universal = [&](std::size_t i) { return pools[i] && !pools[i]->value.empty(); };
    std::set<std::string> named;
    for (const auto& done : asked.finished) named.insert(done.voucher);
    for (std::size_t i = 0; i < asked.vouchers.size(); ++i)
      if (!universal(i)) named.insert(asked.vouchers[i]);
    keys.clear();
    for (const auto& voucher : named) keys.push_back(segment_key(ns, voucher));
    SLUICE_ASSIGN(const auto rows, x.read_rows(keys, flow::Read::verified));
    std::map<std::string, Segments> leases;
    std::set<std::string> changed;
    for (auto [at, voucher] = std::pair(std::size_t{0}, named.begin()); voucher != named.end(); ++voucher, ++at) {
      SLUICE_ASSIGN(leases[*voucher], Segments::decode(rows[at] ? ByteView(rows[at]->value) : ByteView()));
    }
    for (const auto& done : asked.finished)
      if (leases[done.voucher].finish(asked.owner, done.first, done.token)) changed.insert(done.voucher);
    std::string segments;
    std::int64_t room = kMaxCodesPerAnswer;
    const std::int64_t count = std::min(asked.count, std::max<std::int64_t>(1, kMaxCodesPerAnswer / std::max<std::int64_t>(1, std::ssize(asked.vouchers))));
    for (std::size_t i = 0; i < asked.vouchers.size(); ++i) {
      const std::string& voucher = asked.vouchers[i];
      if (universal(i)) {
        segments += fmt::format(R"({}{{"voucher":"{}","universal":"{}"}})", segments.empty() ? "" : ",", voucher, pools[i]->value);
        continue;
      }
      Segments& of = leases[voucher];
      std::vector<Segment> given;
      if (asked.resume) given = of.resume(asked.owner, now + options_.lease, room);
      if (given.empty()) {
        if (auto fresh = of.lease(asked.owner, pools[i] ? pools[i]->number : 0, count, now, now + options_.lease, std::max(room, count)))
          given.push_back(*std::move(fresh));
      }
      if (given.empty()) segments += nothing_of(voucher, of, now, segments.empty());
      else changed.insert(voucher);
      for (const auto& segment : given) {
        room -= segment.count;
        SLUICE_TRY(describe(ns, voucher, segment, segments));
      }
    }
    for (const auto& voucher : changed) x.draft().put(segment_key(ns, voucher), leases[voucher].encode());
    x.respond(Reply::ok(fmt::format(R"({{"lease_ms":{},"segments":[{}]}})", options_.lease.count(), segments)));
    return Vote();
  }

  static std::string nothing_of(const std::string& voucher, const Segments& of, WallTime now, bool first) {
    const auto end = of.first_end();
    const auto leased = end ? fmt::format(R"(,"leased_ms":{})", std::max<std::int64_t>(0, (*end - now).count())) : std::string();
    return fmt::format(R"({}{{"voucher":"{}","none":true{}}})", first ? "" : ",", voucher, leased);
  }

  // Codes never change once they are imported: they need no part in the snapshot.
  Status describe(const std::string& ns, const std::string& voucher, const Segment& segment, std::string& out) {
    store::ListRows query{.ns = ns,
                                  .collection = std::string(kCodes),
                                  .prefix = voucher + "/",
                                  .after = segment.first == 0 ? "" : ordinal_key(voucher, segment.first - 1),
                                  .limit = static_cast<std::size_t>(segment.count)};
    SLUICE_ASSIGN(const auto codes, store::ask_now(*store_, std::move(query)));
    out += fmt::format(R"({}{{"voucher":"{}","first":{},"token":{},"codes":[)", out.empty() ? "" : ",", voucher,
                       segment.first, segment.token);
    bool first = true;
    for (const auto& item : codes) {
      out += fmt::format(R"({}"{}")", first ? "" : ",", item.row.value);
      first = false;
    }
    out += "]}";
    return {};
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
