// One hot voucher, many buyers, a stock far below them; shop and code service are real `sluice serve`
// processes that are killed in the middle, again and again, and started again. Buyers who got no final
// answer ask again with their keys. At the end everybody has an answer, the stock is issued to the last
// piece, each code once; every final answer is asked for once more and must be the same bytes.
// On PostgreSQL the shop is two nodes on one database, either of which may be asked or killed, and every other buyer
// asks both at once with one key: both tell the same, and the code that the second held for it is not lost.
//   flash_sale SLUICE BUYERS STOCK KILLS [SEED [postgres]]
#include <fmt/core.h>
#include <poll.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "apps/voucher/books.hpp"
#include "apps/voucher/importer.hpp"
#include "apps/voucher/rows.hpp"
#include "apps/voucher/segments.hpp"
#include "bench/http_load.hpp"
#include "cli/demo_server.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/store/postgres.hpp"
#include "sluice/store/sqlite.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::crash {
namespace {

constexpr int kConnections = 64;
constexpr int kMaxTurns = 400;  // of asking again: a buyer nobody ever answers is a finding, not a hang
constexpr int kBetweenTurnsMs = 20;
constexpr std::uint64_t kAlso = std::uint64_t{1} << 63;  // in the id of a request: its buyer was asked for at the other node
constexpr int kAnswersWithoutCodes = 200;  // from the death of the code service until it is started again

struct Database {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  std::unique_ptr<store::Store> store;
  /// A file, or postgres://….
  explicit Database(const std::string& where) {
    const auto keep = [this](auto opened) {
      if (!opened) fmt::print("{}\n", opened.error().to_string()), std::exit(1);
      store = std::move(*opened);
    };
    if (store::is_postgres_url(where)) {
      store::PostgresOptions options;
      options.url = where;
      keep(store::open_postgres_store(std::move(options), clock, random, executor));
    } else {
      store::SqliteOptions options;
      options.path = where;
      keep(store::open_sqlite_store(std::move(options), clock, random, executor));
    }
  }
};

struct Shop {
  Shop(const std::string& folder, const char* name, const std::string& binary) : server(folder, name, {}, binary) {}
  cli::DemoServer server;
  bool dead = false;
  std::deque<std::size_t> also;  // buyers who ask here what they ask at the other node
  std::uint64_t told = 0;  // buyers who had their first final answer from it
};

void import(const char* what, const Result<voucher::ImportProgress>& done) {
  if (!done) fmt::print("importing {}: {}\n", what, done.error().to_string()), std::exit(1);
}

class Sale {
 public:
  Sale(std::string binary, std::size_t buyers, std::int64_t stock, int kills, std::uint64_t seed, bool on_postgres)
      : codes_(folder_.path(), "codes", {}, binary), told_(buyers), stock_(stock), random_(seed) {
    shops_.push_back(std::make_unique<Shop>(folder_.path(), "shop", binary));
    if (on_postgres) {
      shops_.push_back(std::make_unique<Shop>(folder_.path(), "shop2", binary));
      database_ = std::make_unique<testing_support::PrivatePostgres>();
      for (const char* name : {"shop", "codes"}) database_->sql(fmt::format("CREATE DATABASE {}", name), "template1");
      ::setenv("SLUICE_STORE_LEASE_MS", "1500", 1);  // the default of ten seconds is long for buyers
    }
    // The moments, in vouchers issued: spread over the whole sale, the first before anything is issued.
    for (int i = 0; i < kills; ++i)
      moments_.push_back(static_cast<std::uint64_t>(stock) * static_cast<std::uint64_t>(i) / static_cast<std::uint64_t>(kills) +
                         draw(static_cast<std::uint64_t>(stock) / static_cast<std::uint64_t>(kills) + 1));
  }

  int run() {
    prepare();
    if (!start_codes()) return 1;
    code_port_ = codes_.grpc_port();
    for (auto& shop : shops_)
      if (!start_shop(*shop)) return 1;
    for (std::size_t i = 0; i < told_.size(); ++i) open_.push_back(i);
    for (int turn = 0; turn < kMaxTurns && !open_.empty(); ++turn) {
      if (turn != 0) ::poll(nullptr, 0, kBetweenTurnsMs);
      std::vector<std::thread> selling;
      for (auto& shop : shops_) selling.emplace_back([this, &shop] { sell(*shop); });
      for (auto& one : selling) one.join();
      if (!revive()) return 1;
    }
    for (const std::size_t buyer : open_) problem(fmt::format("buyer {} has no final answer", buyer));
    for (auto& shop : shops_) ask_everybody_again(*shop);
    for (auto& shop : shops_)
      if (!shop->server.stop_gracefully()) problem("a shop did not stop well on SIGTERM");
    if (!codes_.stop_gracefully()) problem("the code service did not stop well on SIGTERM");
    for (auto& shop : shops_)
      if (shop->told == 0) problem("a node of the shop told nobody anything final");
    audit();
    fmt::print("{} buyers at {} of the shop, stock {}: {} issued, {} sold out, {} refused otherwise; {} kills of the shop, {} of "
               "the code service; {} answers cut off, {} told to try again\n",
               told_.size(), shops_.size() == 1 ? "one node" : "two nodes", stock_, issued_, sold_out_,
               told_.size() - issued_ - sold_out_ - open_.size(), shop_kills_, code_kills_, cut_off_, later_);
    for (const auto& text : problems_) fmt::print("PROBLEM: {}\n", text);
    return problems_.empty() ? 0 : 1;
  }

 private:
  std::uint64_t draw(std::uint64_t bound) {  // SplitMix64
    std::uint64_t z = random_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) % bound;
  }

  void prepare() {
    const std::string catalogue = fmt::format(
        "id,name,region,from,to,value_minor,currency,stock,user_quota,day_quota,budget_minor\n"
        "HOT,Hot,ALL,2020-01-01T00:00:00Z,2120-01-01T00:00:00Z,100,SGD,{},1,1000000000,1000000000000\n", stock_);
    std::string users = "id,region\n", codes = "voucher,code\n";
    for (std::size_t i = 0; i < told_.size(); ++i) users += fmt::format("u{},SG\n", i);
    for (std::int64_t i = 0; i < 2 * stock_; ++i) codes += fmt::format("HOT,HOT-{:07}\n", i);
    voucher::ImportOptions options;
    options.batch = 5000;
    const Database shop(shop_database()), code(code_database());
    import("vouchers", voucher::import_vouchers(*shop.store, voucher::read_from_text(catalogue), "vouchers.csv", options));
    import("users", voucher::import_users(*shop.store, voucher::read_from_text(users), "users.csv", options));
    import("vouchers", voucher::import_vouchers(*code.store, voucher::read_from_text(catalogue), "vouchers.csv", options));
    import("codes", voucher::import_codes(*code.store, voucher::read_from_text(codes), "codes.csv", options));
  }

  std::string shop_database() const { return database_ ? database_->socket_url("shop") : shops_[0]->server.database(); }
  std::string code_database() const { return database_ ? database_->socket_url("codes") : codes_.database(); }

  static bool start(cli::DemoServer& server, std::vector<std::string> arguments) {
    server.arguments(std::move(arguments));
    if (server.start() >= 0) return true;
    fmt::print("{}\n", server.error());
    return false;
  }
  bool start_codes() {
    return start(codes_, {"--store", code_database(), "--apps", "codes", "--grpc-listen", fmt::format("127.0.0.1:{}", code_port_)});
  }
  bool start_shop(Shop& shop) {
    return start(shop.server, {"--store", shop_database(), "--apps", "voucher", "--code-service", fmt::format("127.0.0.1:{}", code_port_),
                               "--code-token", codes_.token(), "--segment-codes", "50", "--downstream-timeout-ms", "200"});
  }
  bool revive() {
    if (codes_dead_ && !start_codes()) return false;
    codes_dead_ = false;
    for (auto& shop : shops_) {
      if (shop->dead && !start_shop(*shop)) return false;
      shop->dead = false;
    }
    return true;
  }

  // At one node, until nobody waits to ask; it is killed meanwhile, and started again while the other goes on.
  void sell(Shop& shop) {
    do drive(shop);
    while (is_back(shop));
  }
  bool is_back(Shop& shop) {
    const auto wanted = [&] {
      const std::scoped_lock lock(mutex_);
      return shop.dead && !open_.empty();
    };
    if (!wanted() || !start_shop(shop)) return false;  // a turn begins with all of them there
    const std::scoped_lock lock(mutex_);
    shop.dead = false;
    return true;
  }

  // Who is asked for at the other node in this moment goes first.
  std::optional<bench::Outgoing> next(Shop& shop, std::set<std::size_t>& asked) {
    if (shop.dead) return std::nullopt;
    if (!shop.also.empty()) {
      bench::Outgoing out = ask(shop.also.front());
      shop.also.pop_front();
      out.id |= kAlso;
      return out;
    }
    if (open_.empty()) return std::nullopt;
    const std::size_t buyer = open_.front();
    open_.pop_front();
    asked.insert(buyer);
    for (auto& other : shops_)
      if (buyer % 2 == 0 && other.get() != &shop && !other->dead) other->also.push_back(buyer);
    return ask(buyer);
  }

  bench::Outgoing ask(std::size_t buyer) {
    const std::string body = fmt::format(
        R"({{"request_id":"sale-{0}","region":"SG","items":[{{"user":"u{0}","voucher":"HOT"}}]}})", buyer);
    return {buyer, fmt::format("POST /v1/commands/voucher.ss.distribution.batch_distribute_voucher HTTP/1.1\r\n"
                               "Host: l\r\nAuthorization: Bearer {}\r\nIdempotency-Key: sale-{}\r\n"
                               "Content-Length: {}\r\n\r\n{}",
                               shops_[0]->server.token(), buyer, body.size(), body)};
  }

  void drive(Shop& shop) {
    std::set<std::size_t> asked;
    try {
      bench::http_drive(
          shop.server.port(), kConnections,
          [&]() -> std::optional<bench::Outgoing> {
            const std::scoped_lock lock(mutex_);
            return next(shop, asked);
          },
          [&](bench::Incoming in) {
            const std::scoped_lock lock(mutex_);
            if ((in.id & kAlso) == 0) asked.erase(in.id);
            const std::size_t before = issued_ + sold_out_;
            heard(in);
            shop.told += issued_ + sold_out_ - before;
          });
    } catch (const std::runtime_error&) {
      // Killed before all had connected: nobody hears what was asked by then.
      const std::scoped_lock lock(mutex_);
      open_.insert(open_.end(), asked.begin(), asked.end());
    }
  }

  void heard(const bench::Incoming& in) {
    const std::size_t buyer = in.id & ~kAlso;
    const bool also = buyer != in.id;  // the other node's request comes again for both
    if (in.whole.empty()) {
      ++cut_off_;
      if (!also) open_.push_back(buyer);
      return;
    }
    const int status = in.status();
    const std::string_view body = in.body();
    const bool later = status == 503 || status == 504 || status == 429 || status == 202 ||
                       (status == 409 && body.find("\"kind\":\"in_progress\"") != body.npos) ||
                       body.find(R"("status":"failed")") != body.npos;
    if (later) {
      ++later_;
      if (!also) open_.push_back(buyer);
    } else if (status != 200) {
      problem("an unexpected answer: " + in.whole.substr(0, 400));
    } else {
      settled(buyer, std::string(body));
    }
    if (codes_dead_ && --codes_back_in_ == 0) codes_dead_ = !start_codes();
    if (!moments_.empty() && issued_ >= moments_.front()) kill_one();
  }

  void settled(std::size_t buyer, std::string body) {
    if (!told_[buyer].empty()) {
      if (body != told_[buyer]) problem(fmt::format("buyer {} was told '{}' and '{}' by two nodes", buyer, told_[buyer], body));
      return;
    }
    const bool issued = body.find(R"("status":"issued")") != body.npos;
    issued_ += issued;
    sold_out_ += body.find(R"("reason":"sold_out")") != body.npos;
    if (issued) {
      const auto at = body.find(R"("code":")") + 8;
      if (!given_.insert(body.substr(at, body.find('"', at) - at)).second) problem("a code was given twice: " + body);
    }
    told_[buyer] = std::move(body);
  }

  // Other requests are in every state there is: asked, prepared, in the group that is being synced.
  void kill_one() {
    moments_.pop_front();
    const std::uint64_t which = draw(3);
    Shop& shop = *shops_[static_cast<std::size_t>(shop_kills_) % shops_.size()];
    if (which != 0 && !codes_dead_) codes_.kill_hard(), codes_dead_ = true, codes_back_in_ = kAnswersWithoutCodes, ++code_kills_;
    if (which != 1 && !shop.dead) shop.server.kill_hard(), shop.dead = true, ++shop_kills_;
  }

  void ask_everybody_again(Shop& shop) {
    std::size_t next = 0, heard = 0;
    bench::http_drive(
        shop.server.port(), kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (next == told_.size()) return std::nullopt;
          return ask(next++);
        },
        [&](bench::Incoming in) {
          ++heard;
          if (!told_[in.id].empty() && in.body() != told_[in.id])
            problem(fmt::format("buyer {} was told '{}' and then '{}'", in.id, told_[in.id], in.body()));
        });
    if (heard != told_.size()) problem("not everybody was answered again");
  }

  // A code that the code service took back as given must be somebody's.
  void audit_codes(store::Store& shop, store::Store& code) {
    const auto row = store::ask_now(code, store::GetRows{{voucher::segment_key("voucher", "HOT")}});
    const auto segments = voucher::Segments::decode(row && row->front() ? ByteView(row->front()->value) : ByteView());
    const auto given = store::ask_now(shop, store::ListRows{.ns = "voucher", .collection = std::string(voucher::kAssigned), .prefix = "HOT/",
                                                            .after = {}, .limit = static_cast<std::size_t>(2 * stock_)});
    if (!row || !segments || !given) return problem("segments or assignments could not be read");
    std::set<std::int64_t> known;
    for (const auto& one : *given) known.insert(voucher::ordinal_of(one.key.key));
    for (const auto& leased : segments->all())
      for (std::int64_t n = leased.first; n < leased.first + leased.count; ++n) known.insert(n);
    if (const std::int64_t burnt = known.empty() ? 0 : *known.rbegin() + 1 - std::ssize(known); burnt != 0)
      problem(fmt::format("{} codes are leased to nobody and were given to nobody", burnt));
  }

  void audit() {
    const Database shop(shop_database()), code(code_database());
    const auto books = voucher::audit_books(*shop.store, "voucher", code.store.get());
    if (!books) return problem(books.error().to_string());
    for (const auto& wrong : books->wrong) problem(wrong);
    if (books->issued != stock_) problem(fmt::format("{} issued in the books of a stock of {}", books->issued, stock_));
    if (static_cast<std::int64_t>(issued_) != stock_)
      problem(fmt::format("{} buyers were told of a voucher, the stock was {}", issued_, stock_));
    audit_codes(*shop.store, *code.store);
    if (!moments_.empty()) problem(fmt::format("{} kills never came", moments_.size()));
  }

  void problem(std::string text) {
    if (problems_.size() < 20) problems_.push_back(std::move(text));
  }

  testing_support::TempFolder folder_;
  std::unique_ptr<testing_support::PrivatePostgres> database_;  // none: each a file of its own
  cli::DemoServer codes_;
  std::vector<std::unique_ptr<Shop>> shops_;
  std::mutex mutex_;  // while there is selling: of all below, and of who is killed
  std::vector<std::string> told_;  // by buyer: the body of the first final answer
  const std::int64_t stock_;
  std::uint64_t random_;
  std::deque<std::uint64_t> moments_;
  std::deque<std::size_t> open_;
  std::set<std::string> given_;
  std::uint16_t code_port_ = 0;
  bool codes_dead_ = false;
  int codes_back_in_ = 0, shop_kills_ = 0, code_kills_ = 0;
  std::uint64_t issued_ = 0, sold_out_ = 0, cut_off_ = 0, later_ = 0;
  std::vector<std::string> problems_;
};

}  // namespace
}  // namespace sluice::crash

int main(int count, char** arguments) {
  if (count < 5) {
    fmt::print("usage: flash_sale SLUICE BUYERS STOCK KILLS [SEED [postgres]]\n");
    return 2;
  }
  return sluice::crash::Sale(arguments[1], std::strtoull(arguments[2], nullptr, 10), std::atoll(arguments[3]),
                             std::atoi(arguments[4]), count > 5 ? std::strtoull(arguments[5], nullptr, 10) : 1,
                             count > 6 && std::strcmp(arguments[6], "postgres") == 0)
      .run();
}
