#include "apps/voucher/code_service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "voucher/v1/codes.pb.h"

#include "apps/voucher/code_question.hpp"
#include "apps/voucher/rows.hpp"
#include "apps/voucher/segment_commands.hpp"
#include "apps/voucher/segments.hpp"
#include "sluice/flow.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::voucher {
namespace {

using flow::Exchange;
using flow::Vote;
using Json = nlohmann::json;

class CodeService final : public server::App {
 public:
  explicit CodeService(CodeServiceOptions options) : options_(options) {}
  std::string_view name() const noexcept override { return "codes"; }

  Status install(server::AppContext& context) override {
    store_ = &context.store;
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
        R"({"type":"object","required":["owner"],"properties":{"owner":{"type":"string"},"store":{"type":"string"},"region":{"type":"string"},)"
        R"("vouchers":{"type":"array","items":{"type":"string"}},"count":{"type":"integer"},"resume":{"type":"boolean"},)"
        R"("bypass_cache":{"type":"boolean","description":"fresh codes, not what this owner has"},)"
        R"("finished":{"type":"array"}},"additionalProperties":false})";
    get.handler = faults_->around(rpc::flow_handler(*flow_));
    SLUICE_TRY(context.registry.add(std::move(get)));
    context.grpc.bind(
        ::voucher::v1::BatchGetCodeUsingCacheRequest::descriptor()->file()->service(0)->full_name() + "/BatchGetCodeUsingCache",
        std::string(kGetCodes));
    segment_commands_ = std::make_unique<SegmentCommands>(context);
    SLUICE_TRY(segment_commands_->add(context));
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
    auto parsed = CodeQuestion::parse(x.request());
    if (!parsed) co_return fail(parsed.error());
    const CodeQuestion asked = *std::move(parsed);
    const std::string& ns = x.ns().text();
    const WallTime now = store_->now();  // by which every node ends leases
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
  static std::set<std::string> leased_by(const CodeQuestion& asked, const std::vector<std::optional<store::KvRow>>& pools) {
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

  std::vector<Given> give(const CodeQuestion& asked, const std::vector<std::optional<store::KvRow>>& pools, Leases& leases,
                          std::set<std::string>& changed, WallTime now) const {
    for (const auto& done : asked.finished)
      if (leases[done.voucher].finish(asked.holder, done.first, done.token)) changed.insert(done.voucher);
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
      if (asked.resume) given.segments = of.resume(asked.holder, now + options_.lease, room);
      if (given.segments.empty()) {
        if (auto fresh = of.lease(asked.holder, pools[i] ? pools[i]->number : 0, count, now, now + options_.lease, std::max(room, count),
                                  asked.bypass_cache))
          given.segments.push_back(*std::move(fresh));
      }
      if (!given.segments.empty()) changed.insert(given.voucher);
      if (const auto end = of.first_end(asked.holder, now, now + options_.lease); end && given.segments.empty())
        given.leased = std::max(milliseconds(0), *end - now);
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
  std::unique_ptr<Faults> faults_;
  std::unique_ptr<flow::Flow> flow_;
  std::unique_ptr<SegmentCommands> segment_commands_;
};

}  // namespace

std::unique_ptr<server::App> make_code_service(CodeServiceOptions options) {
  return std::make_unique<CodeService>(options);
}

}  // namespace sluice::voucher
