#include "cli/demo_campaign.hpp"

#include <fmt/core.h>

#include "apps/voucher/books.hpp"
#include "apps/voucher/generator.hpp"
#include "apps/voucher/importer.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/store/sqlite.hpp"

namespace sluice::cli {
namespace {

struct OpenStore {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  std::unique_ptr<store::SqliteStore> store;
  std::string error;
  explicit OpenStore(const std::string& database) {
    store::SqliteOptions options;
    options.path = database;
    auto opened = store::open_sqlite_store(std::move(options), clock, random, executor);
    if (opened)
      store = std::move(*opened);
    else
      error = opened.error().to_string();
  }
};

}  // namespace

namespace {

using Generate = Status (*)(const voucher::GeneratorOptions&, const voucher::TextSink&);
using Import = Result<voucher::ImportProgress> (*)(store::Store&, voucher::ByteSource, std::string,
                                                   const voucher::ImportOptions&);
struct Part {
  const char* file;
  Generate generate;
  Import import;
};
constexpr Part kVouchers{"vouchers.csv", voucher::generate_vouchers, voucher::import_vouchers};
constexpr Part kCodes{"codes.csv", voucher::generate_codes, voucher::import_codes};
constexpr Part kUsers{"users.csv", voucher::generate_users, voucher::import_users};

std::string import_parts(const std::string& database, voucher::GeneratorOptions campaign, std::initializer_list<Part> parts,
                         std::initializer_list<const char*> namespaces, bool quiet) {
  OpenStore open(database);
  if (!open.store) return open.error;
  campaign.today = open.clock.wall().time_since_epoch().count() / 86'400'000;
  voucher::ImportOptions options;
  options.batch = 2000;
  for (const char* ns : namespaces)
    for (const auto& part : parts) {
      options.ns = ns;
      std::string text;
      const Status made = part.generate(campaign, [&](std::string_view piece) -> Status {
        text += piece;
        return {};
      });
      if (!made) return made.error().to_string();
      const auto imported = part.import(*open.store, voucher::read_from_text(std::move(text)), part.file, options);
      if (!imported) return imported.error().to_string();
      if (!quiet) fmt::print("  imported {:>7} rows of {}\n", imported->imported, part.file);
    }
  return {};
}

}  // namespace

std::string prepare_campaign(const std::string& database) {
  voucher::GeneratorOptions campaign;
  campaign.hot = kHotVouchers;
  campaign.hot_stock = kHotStock;
  return import_parts(database, campaign, {kVouchers, kCodes, kUsers}, {"voucher"}, false);
}

std::string prepare_services(const std::string& shop, const std::string& codes, const std::string& users) {
  voucher::GeneratorOptions campaign;
  campaign.vouchers = campaign.hot = 40;
  campaign.codes_per_voucher = 3000;
  campaign.users = 2000;
  // Shadow traffic has catalogue, codes and users of its own.
  for (const auto& error : {import_parts(shop, campaign, {kVouchers}, {"voucher", "voucher~shadow"}, true),
                            import_parts(codes, campaign, {kVouchers, kCodes}, {"voucher", "voucher~shadow"}, true),
                            import_parts(users, campaign, {kUsers}, {"voucher", "voucher~shadow"}, true)})
    if (!error.empty()) return error;
  return {};
}

CampaignBooks audit_campaign(const std::string& database, const std::string& codes) {
  CampaignBooks result;
  OpenStore open(database);
  if (!open.store) {
    result.wrong.push_back(open.error);
    return result;
  }
  std::unique_ptr<OpenStore> elsewhere;
  if (!codes.empty()) elsewhere = std::make_unique<OpenStore>(codes);
  if (elsewhere && !elsewhere->store) {
    result.wrong.push_back(elsewhere->error);
    return result;
  }
  const auto books = voucher::audit_books(*open.store, "voucher", elsewhere ? elsewhere->store.get() : nullptr);
  if (!books) {
    result.wrong.push_back(books.error().to_string());
    return result;
  }
  result.stock = books->stock;
  result.left = books->left;
  result.issued = books->issued;
  result.codes = books->codes;
  result.sold_out = books->sold_out;
  result.wrong = books->wrong;
  return result;
}

std::string campaign_request(std::uint64_t id, std::uint64_t n) {
  return fmt::format(R"({{"request_id":"demo-{}","region":"DE","items":[{{"user":"{}","voucher":"{}"}}]}})", id,
                     voucher::generated_user_id(static_cast<std::int64_t>(n / kHotVouchers % 5000)),
                     voucher::generated_voucher_id(static_cast<std::int64_t>(n % kHotVouchers)));
}

}  // namespace sluice::cli
