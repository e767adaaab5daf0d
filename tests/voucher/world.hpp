// A store in memory with a small campaign in it, for tests of the voucher app.
#pragma once
#include <gtest/gtest.h>

#include <memory>

#include "apps/voucher/books.hpp"
#include "apps/voucher/generator.hpp"
#include "apps/voucher/importer.hpp"
#include "apps/voucher/rows.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "support/any_store.hpp"

namespace sluice::voucher {

inline std::string generated(Status (*what)(const GeneratorOptions&, const TextSink&),
                             const GeneratorOptions& options) {
  std::string text;
  const Status status = what(options, [&](std::string_view piece) -> Status {
    text += piece;
    return {};
  });
  EXPECT_TRUE(status);
  return text;
}

struct World {
  sim::SimClock clock;
  sim::SimRandom random{1};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  ImportOptions options;

  Result<ImportProgress> catalogue(std::string text) {
    return import_vouchers(*store, read_from_text(std::move(text)), "vouchers.csv", options);
  }
  Result<ImportProgress> codes(std::string text) {
    return import_codes(*store, read_from_text(std::move(text)), "codes.csv", options);
  }
  Result<ImportProgress> users(std::string text) {
    return import_users(*store, read_from_text(std::move(text)), "users.csv", options);
  }
  Books books() {
    auto books = audit_books(*store, options.ns);
    EXPECT_TRUE(books) << books.error().to_string();
    return books ? *std::move(books) : Books{};
  }
  std::optional<store::KvRow> row(const store::KvKey& key) {
    store::GetRows get;
    get.keys.push_back(key);
    auto rows = store::ask_now(*store, std::move(get));
    return rows ? (*rows)[0] : std::nullopt;
  }
};

}  // namespace sluice::voucher
