// More stock and budget for a voucher.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/voucher/distribution.hpp"
#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

constexpr std::int64_t kMaxRestock = 1'000'000'000'000;  // of pieces and of minor units: sums stay far from 2^63

using flow::Exchange;
using flow::Vote;
using Json = nlohmann::json;

struct Restock {
  std::string voucher;
  std::int64_t stock = 0, budget_minor = 0;

  static Result<Restock> parse(ByteView request) {
    const auto bad = [](std::string what) { return fail(FailureKind::invalid_argument, "bad_restock", std::move(what)); };
    const auto json = Json::parse(request, nullptr, false);
    const auto number = [&](const char* name) -> std::int64_t {
      const auto found = json.find(name);
      if (found == json.end()) return 0;
      return found->is_number_integer() && *found >= 0 && *found <= kMaxRestock ? found->get<std::int64_t>() : -1;
    };
    const auto id = json.is_object() ? json.find("voucher") : json.end();
    if (!json.is_object() || id == json.end() || !id->is_string() || number("stock") < 0 || number("budget_minor") < 0)
      return bad(fmt::format("expected {{\"voucher\":ID,\"stock\":N,\"budget_minor\":M}} with N and M from 0 to {}", kMaxRestock));
    for (const auto& [name, value] : json.items())
      if (name != "voucher" && name != "stock" && name != "budget_minor")
        return bad(fmt::format("unknown member {}; there are voucher, stock, budget_minor", Json(name).dump()));
    if (!json.contains("stock") && !json.contains("budget_minor")) return bad("neither stock nor budget_minor: nothing would be added");
    return Restock{id->get<std::string>(), number("stock"), number("budget_minor")};
  }
};

Task<Result<Vote>> add_stock(Exchange& x) {
  auto parsed = Restock::parse(x.request());
  if (!parsed) co_return fail(parsed.error());
  const Restock more = *std::move(parsed);
  const std::string& ns = x.ns().text();
  const auto key = voucher_key(ns, more.voucher);
  auto reading = x.read_task(key, flow::Read::verified);
  const auto row = co_await reading;
  if (!row) co_return fail(row.error());
  if (!*row) {
    Failure none(FailureKind::not_found, "unknown_voucher", "no voucher '" + more.voucher + "'");
    co_return fail(std::move(none));
  }
  auto decoded = decode_voucher((*row)->value);
  if (!decoded) co_return fail(decoded.error());
  Voucher voucher = *std::move(decoded);
  voucher.stock += more.stock;
  voucher.budget_minor += more.budget_minor;
  x.draft().put(key, encode(voucher));
  x.draft().add(stock_key(ns, voucher.id), more.stock);
  x.draft().add(budget_key(ns, voucher.id), more.budget_minor);
  // So that the file it came from is known again.
  if (more.stock != 0) x.draft().add(restocked_stock_key(ns, voucher.id), more.stock);
  if (more.budget_minor != 0) x.draft().add(restocked_budget_key(ns, voucher.id), more.budget_minor);
  x.respond(Reply::ok(fmt::format(R"({{"voucher":"{}","stock":{},"budget_minor":{}}})", voucher.id, voucher.stock, voucher.budget_minor)));
  co_return Vote();
}

class RestockStage final : public flow::Stage {
 public:
  explicit RestockStage(SoldOut& sold_out) : sold_out_(sold_out) {}
  std::string_view name() const noexcept override { return "restock"; }
  flow::Effect effect() const noexcept override { return flow::Effect::store; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return true; }
  Task<Result<Vote>> prepare_task(Exchange& x) override { return add_stock(x); }
  Task<Status> commit_task(Exchange& x) override {
    // What prepare knew is gone by now; the request is not.
    sold_out_.remove(x.ns().text(), Json::parse(x.request()).at("voucher").get<std::string>());
    co_return Status();
  }

 private:
  SoldOut& sold_out_;
};

}  // namespace

flow::StagePtr Distribution::restock_stage() { return std::make_shared<RestockStage>(sold_out_); }

}  // namespace sluice::voucher
