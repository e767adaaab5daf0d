#include "apps/voucher/importer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

#include "apps/voucher/rows.hpp"
#include "fmt/format.h"

namespace sluice::voucher {
namespace {

constexpr int kMaxConflicts = 16;  // another importer at work on the same vouchers

// One line of a file as rows: `key` is what makes it the same line when it comes again.
struct Line {
  store::KvKey key;
  Bytes value;
  std::vector<store::Mutation> more;  // beside the row itself
  std::string voucher;                // whose pool it extends; empty: none
  bool universal = false;             // its pool is this one code, for all
  std::uint64_t line = 0;
};

// Fills a Line from the reader's current record.
using Parse = std::function<Result<Line>(const CsvReader&, const std::vector<std::string_view>&)>;

class Import {
 public:
  Import(store::Store& store, const ImportOptions& options, std::string file)
      : store_(store), options_(options) {
    progress_.file = std::move(file);
  }

  Result<ImportProgress> run(CsvReader& reader, const Parse& parse) {
    std::vector<std::string_view> fields;
    for (bool more = true; more;) {
      std::vector<Line> lines;
      while (lines.size() < options_.batch) {
        SLUICE_ASSIGN(more, reader.next(fields));
        if (!more) break;
        SLUICE_ASSIGN(Line line, parse(reader, fields));
        line.line = reader.line();
        lines.push_back(std::move(line));
      }
      if (!lines.empty()) SLUICE_TRY(import(lines));
      progress_.rows += lines.size();
      progress_.bytes = reader.bytes_read();
      if (options_.progress && !options_.progress(progress_) && more)
        return fail(FailureKind::cancelled, "import_cut",
                    fmt::format("{}: stopped after {} rows; run it again to go on",
                                progress_.file, progress_.rows));
    }
    return progress_;
  }

 private:
  Status import(const std::vector<Line>& lines) {
    for (int attempt = 0; attempt < kMaxConflicts; ++attempt) {
      SLUICE_ASSIGN(const bool done, try_import(lines));
      if (done) return {};
    }
    return fail(FailureKind::version_conflict, "import_conflict",
                progress_.file + ": another import keeps changing the same rows; run one at a time");
  }

  // False: a row changed under us, look again.
  Result<bool> try_import(const std::vector<Line>& lines) {
    SLUICE_TRY(load_pools(lines));
    store::GetRows lookup;
    for (const Line& line : lines) lookup.keys.push_back(line.key);
    SLUICE_ASSIGN(const auto found, store::ask_now(store_, std::move(lookup)));

    store::Commit commit;
    std::map<std::string, std::int64_t> grown;
    std::map<store::KvKey, const Bytes*> fresh;
    std::map<std::string, std::string> universal;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const Line& line = lines[i];
      if (!line.voucher.empty() && !fits(line, universal)) return mixed(line);
      const auto twin = fresh.find(line.key);
      const Bytes* there = found[i] ? &found[i]->value : twin != fresh.end() ? twin->second : nullptr;
      if (there != nullptr) {
        if (*there == line.value) continue;
        SLUICE_ASSIGN(const bool restocked, only_restocked(line));
        if (!restocked) return conflicting(line);
        continue;
      }
      fresh.emplace(line.key, &line.value);
      add(line, grown, commit);
    }
    if (!fresh.empty()) {
      for (const auto& [voucher, by] : grown) {
        const store::KvKey pool = pool_key(options_.ns, voucher);
        commit.requires_.push_back({store::KvVersionIs{pool, pools_[voucher].version}, "pool"});
        commit.then.push_back(store::KvAdd{pool, by});
      }
      SLUICE_ASSIGN(const auto outcome, store::commit_and_wait(store_, std::move(commit)));
      if (!outcome.applied) return false;
    }
    progress_.imported += fresh.size();
    progress_.recognised += lines.size() - fresh.size();
    return true;
  }

  void add(const Line& line, std::map<std::string, std::int64_t>& grown, store::Commit& commit) {
    commit.requires_.push_back({store::KvVersionIs{line.key, 0}, "imported_meanwhile"});
    std::optional<std::int64_t> number;
    if (line.universal) {
      const store::KvKey pool = pool_key(options_.ns, line.voucher);
      commit.requires_.push_back({store::KvVersionIs{pool, pools_[line.voucher].version}, "pool"});
      commit.then.push_back(store::KvPut{pool, line.key.key, 0});
    } else if (!line.voucher.empty()) {
      number = pools_[line.voucher].codes + grown[line.voucher]++;
      commit.then.push_back(
          store::KvPut{code_key(options_.ns, line.voucher, *number), line.key.key, {}});
    }
    commit.then.push_back(store::KvPut{line.key, line.value, number});
    commit.then.insert(commit.then.end(), line.more.begin(), line.more.end());
  }

  struct Pool {
    std::uint64_t version = 0;
    std::int64_t codes = 0;
    std::string universal;
  };

  // A voucher has codes of which each goes to one user, or one that goes to all; never both.
  // `given`: the universal codes of this batch's earlier lines.
  bool fits(const Line& line, std::map<std::string, std::string>& given) {
    const Pool& pool = pools_[line.voucher];
    const auto earlier = given.find(line.voucher);
    const std::string& text = earlier != given.end() ? earlier->second : pool.universal;
    if (!line.universal) return text.empty();
    if (text.empty()) given[line.voucher] = line.key.key;
    return text.empty() ? pool.codes == 0 : text == line.key.key;
  }

  std::unexpected<Failure> mixed(const Line& line) const {
    return fail(FailureKind::invalid_argument, "conflicting_row",
                fmt::format("{}: line {}: voucher \"{}\" has {} already; a voucher has codes of which each goes to one user, "
                            "or one universal code: remove the line, or give it to another voucher",
                            progress_.file, line.line, line.voucher,
                            line.universal ? "codes of its own, or another universal code" : "a universal code"));
  }

  // How many codes the vouchers of these lines have; the vouchers must be there.
  Status load_pools(const std::vector<Line>& lines) {
    pools_.clear();
    std::map<std::string, std::uint64_t> first_line;
    for (const Line& line : lines)
      if (!line.voucher.empty()) first_line.emplace(line.voucher, line.line);
    if (first_line.empty()) return {};
    store::GetRows lookup;
    for (const auto& [voucher, line] : first_line) {
      lookup.keys.push_back(voucher_key(options_.ns, voucher));
      lookup.keys.push_back(pool_key(options_.ns, voucher));
    }
    SLUICE_ASSIGN(const auto rows, store::ask_now(store_, std::move(lookup)));
    std::size_t i = 0;
    for (const auto& [voucher, line] : first_line) {
      if (!rows[i])
        return fail(FailureKind::invalid_argument, "unknown_voucher",
                    fmt::format("{}: line {}, column 1 (voucher): expected a voucher of the "
                                "catalogue, got \"{}\"; import the catalogue first",
                                progress_.file, line, voucher));
      if (const auto& pool = rows[i + 1]) pools_[voucher] = {pool->version, pool->number, pool->value};
      i += 2;
    }
    return {};
  }

  // Whether a voucher is as this line has it but for what was added by restocks, which stays.
  Result<bool> only_restocked(const Line& line) {
    if (line.key.collection != kVouchers) return false;
    const std::string& id = line.key.key;
    store::GetRows lookup;
    lookup.keys = {line.key, restocked_stock_key(options_.ns, id), restocked_budget_key(options_.ns, id)};
    SLUICE_ASSIGN(const auto rows, store::ask_now(store_, std::move(lookup)));
    if (!rows[0]) return false;  // it stands in this file twice
    SLUICE_ASSIGN(Voucher there, decode_voucher(rows[0]->value));
    if (rows[1]) there.stock -= rows[1]->number;
    if (rows[2]) there.budget_minor -= rows[2]->number;
    return encode(there) == line.value;
  }

  std::unexpected<Failure> conflicting(const Line& line) const {
    const bool voucher = line.key.collection == kVouchers;
    return fail(FailureKind::invalid_argument, "conflicting_row",
                fmt::format("{}: line {}: {} \"{}\" is there already with other contents; "
                            "remove the line, or give it a new id{}",
                            progress_.file, line.line, line.key.collection, line.key.key,
                            voucher ? "; stock and budget are raised by voucher.catalogue.restock" : ""));
  }

  store::Store& store_;
  const ImportOptions& options_;
  ImportProgress progress_;
  std::map<std::string, Pool> pools_;
};

// "2026-01-31T08:00:00Z": UTC only, so that nobody has to guess, and digits where digits stand.
Result<WallTime> parse_time(const CsvReader& reader, std::size_t column, std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:ddZ";
  const auto fits = [](char form, char c) { return form == 'd' ? c >= '0' && c <= '9' : c == form; };
  const auto number = [&](std::size_t at, std::size_t digits) {
    int value = 0;
    for (std::size_t i = at; i < at + digits; ++i) value = value * 10 + (text[i] - '0');
    return value;
  };
  if (std::ranges::equal(kForm, text, fits)) {
    const std::chrono::year_month_day date{std::chrono::year{number(0, 4)}, std::chrono::month{static_cast<unsigned>(number(5, 2))},
                                           std::chrono::day{static_cast<unsigned>(number(8, 2))}};
    const int h = number(11, 2), mi = number(14, 2), s = number(17, 2);
    if (date.ok() && h <= 23 && mi <= 59 && s <= 59)
      return WallTime(std::chrono::sys_days{date}) + std::chrono::hours(h) + std::chrono::minutes(mi) + seconds(s);
  }
  return fail(reader.complain(column, "a time like 2026-01-31T08:00:00Z", "write it in UTC"));
}

constexpr std::int64_t kMaxCount = 1'000'000'000;
constexpr std::int64_t kMaxMoney = 1'000'000'000'000'000;  // 10^15 minor units

Result<Voucher> parse_voucher(const CsvReader& reader, const std::vector<std::string_view>& f) {
  Voucher v{.id = std::string(f[0]), .name = std::string(f[1]), .region = std::string(f[2]),
            .currency = std::string(f[6])};
  if (!valid_id(v.id))
    return fail(reader.complain(0, "an id of 1–64 of A–Z a–z 0–9 - _ .", "rename the voucher"));
  if (v.name.empty()) return fail(reader.complain(1, "a name", "give the voucher a name"));
  if (!valid_region(v.region))
    return fail(reader.complain(2, "two capital letters or ALL", "correct the region"));
  if (v.currency.size() != 3 || v.currency.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != v.currency.npos)
    return fail(reader.complain(6, "an ISO 4217 currency like SGD", "correct the currency"));
  SLUICE_ASSIGN(v.from, parse_time(reader, 3, f[3]));
  SLUICE_ASSIGN(v.to, parse_time(reader, 4, f[4]));
  if (v.to <= v.from)
    return fail(reader.complain(4, "a time after the window's begin", "correct the window"));
  SLUICE_ASSIGN(v.value_minor, reader.integer(5, 1, kMaxMoney));
  SLUICE_ASSIGN(v.stock, reader.integer(7, 0, kMaxCount));
  SLUICE_ASSIGN(v.user_quota, reader.integer(8, 1, kMaxCount));
  SLUICE_ASSIGN(v.day_quota, reader.integer(9, 1, kMaxCount));
  SLUICE_ASSIGN(v.budget_minor, reader.integer(10, 0, kMaxMoney));
  return v;
}

}  // namespace

Result<ImportProgress> import_vouchers(store::Store& store, ByteSource source, std::string file,
                                       const ImportOptions& options) {
  CsvReader reader(std::move(source), file,
                   {"id", "name", "region", "from", "to", "value_minor", "currency", "stock",
                    "user_quota", "day_quota", "budget_minor"});
  return Import(store, options, file)
      .run(reader, [&](const CsvReader& r, const auto& fields) -> Result<Line> {
        SLUICE_ASSIGN(const Voucher v, parse_voucher(r, fields));
        return Line{.key = voucher_key(options.ns, v.id),
                    .value = encode(v),
                    .more = {store::KvPut{stock_key(options.ns, v.id), {}, v.stock},
                             store::KvPut{budget_key(options.ns, v.id), {}, v.budget_minor}},
                    .voucher = {},
                    .universal = false};
      });
}

namespace {

Result<ImportProgress> import_texts(store::Store& store, ByteSource source, std::string file,
                                    const ImportOptions& options, bool universal) {
  CsvReader reader(std::move(source), file, {"voucher", "code"});
  return Import(store, options, file)
      .run(reader, [&](const CsvReader& r, const auto& fields) -> Result<Line> {
        if (!valid_id(fields[0]))
          return fail(r.complain(0, "a voucher's id", "use the ids of the catalogue"));
        if (!valid_code(fields[1]))
          return fail(r.complain(1, "a code of 4–64 of A–Z 0–9 -", "correct the code"));
        return Line{.key = code_text_key(options.ns, fields[1]),
                    .value = Bytes(fields[0]),
                    .more = {},
                    .voucher = std::string(fields[0]),
                    .universal = universal};
      });
}

}  // namespace

Result<ImportProgress> import_codes(store::Store& store, ByteSource source, std::string file,
                                    const ImportOptions& options) {
  return import_texts(store, std::move(source), std::move(file), options, false);
}

Result<ImportProgress> import_universal_codes(store::Store& store, ByteSource source, std::string file,
                                              const ImportOptions& options) {
  return import_texts(store, std::move(source), std::move(file), options, true);
}

Result<ImportProgress> import_users(store::Store& store, ByteSource source, std::string file,
                                    const ImportOptions& options) {
  CsvReader reader(std::move(source), file, {"id", "region"});
  return Import(store, options, file)
      .run(reader, [&](const CsvReader& r, const auto& fields) -> Result<Line> {
        if (!valid_id(fields[0]))
          return fail(r.complain(0, "an id of 1–64 of A–Z a–z 0–9 - _ .", "rename the user"));
        if (!valid_region(fields[1]))
          return fail(r.complain(1, "two capital letters or ALL", "correct the region"));
        const User user{std::string(fields[0]), std::string(fields[1])};
        return Line{
            .key = user_key(options.ns, user.id), .value = encode(user), .more = {}, .voucher = {}, .universal = false};
      });
}

ByteSource read_from(File& file) {
  return [&file, offset = std::uint64_t{0}](char* out, std::size_t size) mutable {
    auto read = file.read_at(offset, out, size);
    if (read) offset += *read;
    return read;
  };
}

ByteSource read_from_text(std::string text) {
  return [text = std::move(text), at = std::size_t{0}](char* out,
                                                       std::size_t size) mutable -> Result<std::size_t> {
    const std::size_t n = text.copy(out, size, at);
    at += n;
    return n;
  };
}

std::function<bool(const ImportProgress&)> terminal_progress(Clock& clock) {
  struct State {
    Instant began, shown;
    std::uint64_t first_bytes = 0;
  };
  auto state = std::make_shared<State>(State{clock.now(), Instant{}, 0});
  return [state, &clock](const ImportProgress& p) {
    const Instant now = clock.now();
    const bool last = p.total_bytes != 0 && p.bytes >= p.total_bytes;
    if (!last && now - state->shown < milliseconds(100)) return true;
    state->shown = now;
    const double spent = std::chrono::duration<double>(now - state->began).count();
    const double rate = spent > 0 ? static_cast<double>(p.rows) / spent : 0;
    std::string left;
    if (p.total_bytes > p.bytes && p.bytes > 0)
      left = fmt::format(", {:.0f} s left", spent * static_cast<double>(p.total_bytes - p.bytes) /
                                                static_cast<double>(p.bytes));
    fmt::print(stderr, "\r{}: {} rows, {} new, {:.0f} rows/s{}   {}", p.file, p.rows, p.imported,
               rate, left, last ? "\n" : "");
    return true;
  };
}

}  // namespace sluice::voucher
