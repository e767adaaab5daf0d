#include "apps/voucher/generator.hpp"

#include <array>
#include <string>

#include "fmt/format.h"

namespace sluice::voucher {
namespace {

// SplitMix64 (Steele, Lea, Flood, 2014). Own, because files must be the same on every machine and
// for every release.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  std::int64_t within(std::int64_t low, std::int64_t high) noexcept {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  template <class T, std::size_t N>
  const T& pick(const std::array<T, N>& from) noexcept {
    return from[next() % N];
  }

 private:
  std::uint64_t state_;
};

struct Region {
  std::string_view code, currency;
  std::int64_t unit;  // a small amount of money there, in minor units
};
constexpr std::array<Region, 6> kRegions{{{"ID", "IDR", 1'000'000},
                                          {"SG", "SGD", 100},
                                          {"MY", "MYR", 300},
                                          {"TH", "THB", 2'000},
                                          {"VN", "VND", 1'500'000},
                                          {"PH", "PHP", 3'000}}};
constexpr std::array<std::string_view, 10> kOccasions{
    "Payday",   "Weekend",   "New Year", "Harvest", "Back to School",
    "Midnight", "Mega Sale", "Birthday", "Monsoon", "Grand Opening"};
constexpr std::array<std::string_view, 10> kGoods{
    "Free Delivery", "Coffee",  "Groceries",    "Electronics", "Fashion, Shoes",
    "Books",         "Fitness", "Home & Garden", "Taxi Ride",   "Phone Credit"};
constexpr std::size_t kPiece = 32 << 10;

std::string date(std::int64_t day) {
  const std::chrono::year_month_day d{std::chrono::sys_days{std::chrono::days{day}}};
  return fmt::format("{:04}-{:02}-{:02}T00:00:00Z", static_cast<int>(d.year()),
                     static_cast<unsigned>(d.month()), static_cast<unsigned>(d.day()));
}

std::string voucher_line(const GeneratorOptions& options, std::int64_t n) {
  Numbers r(options.seed ^ (0xA000'0000'0000ull + static_cast<std::uint64_t>(n)));
  const Region& region = r.pick(kRegions);
  const bool hot = n < options.hot;
  const std::int64_t value = region.unit * r.within(1, 20) / 2;
  // One in ten is scarcer than its codes, and one in ten has less money than stock.
  std::int64_t stock = options.codes_per_voucher;
  if (!hot && r.within(0, 9) == 0) stock = std::max<std::int64_t>(1, stock * 6 / 10);
  std::int64_t budget = value * stock;
  if (hot && options.hot_stock > 0) stock = options.hot_stock;
  if (!hot && r.within(0, 9) == 0) budget = std::max<std::int64_t>(value, budget * 8 / 10);
  const std::int64_t user_quota = hot ? 2 : r.within(1, 5);
  const std::int64_t day_quota = hot ? 1'000'000 : r.within(std::max<std::int64_t>(1, stock / 4), stock);
  // Nine in ten are open today, the others are over or to come.
  const std::int64_t age = hot ? 0 : r.within(0, 19);
  std::int64_t from = options.today - r.within(1, 60), to = options.today + r.within(30, 700);
  if (age == 18) to = options.today - 1, from -= 90;
  if (age == 19) from = options.today + 400, to = from + 30;
  const auto occasion = r.pick(kOccasions), goods = r.pick(kGoods);  // one after the other, everywhere
  const std::string name = fmt::format("\"{} {} {}\"", occasion, goods, r.within(5, 75));
  return fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", generated_voucher_id(n), name,
                     hot ? "ALL" : region.code, date(from), date(to), value, region.currency,
                     stock, user_quota, day_quota, budget);
}

// A bijection of (voucher, ordinal) into 40 bits, written in 8 letters: codes differ, look random,
// and need no memory of those made before.
std::string code_text(std::uint64_t seed, std::int64_t voucher, std::int64_t ordinal) {
  constexpr std::string_view kLetters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  constexpr std::uint64_t kMask = (1ull << 40) - 1;
  std::uint64_t x = (static_cast<std::uint64_t>(voucher) << 20 |
                     static_cast<std::uint64_t>(ordinal)) & kMask;
  // Each step (add, multiply by an odd number, xor with a right shift) is invertible in 40 bits.
  for (int round = 0; round < 3; ++round) {
    x = (x + seed + static_cast<std::uint64_t>(round)) & kMask;
    x = (x * 0x9E3779B97Full) & kMask;
    x ^= x >> 19;
  }
  std::string text(9, '-');
  for (std::size_t i = 0; i < 8; ++i) text[i < 4 ? i : i + 1] = kLetters[(x >> (5 * i)) & 31];
  return text;
}

template <class Line>
Status write_all(std::string head, std::int64_t count, const TextSink& sink, Line line) {
  for (std::int64_t n = 0; n < count; ++n) {
    line(head, n);
    if (head.size() < kPiece) continue;
    SLUICE_TRY(sink(head));
    head.clear();
  }
  return head.empty() ? Status{} : sink(head);
}

Status check(const GeneratorOptions& o) {
  if (o.vouchers < 1 || o.vouchers > 1 << 20 || o.codes_per_voucher < 1 ||
      o.codes_per_voucher > 1 << 20 || o.users < 1)
    return fail(FailureKind::invalid_argument, "bad_size",
                fmt::format("expected 1–{} vouchers, 1–{} codes each and at least 1 user, got {}, "
                            "{} and {}",
                            1 << 20, 1 << 20, o.vouchers, o.codes_per_voucher, o.users));
  return {};
}

}  // namespace

std::string generated_voucher_id(std::int64_t n) { return fmt::format("V{:06}", n); }
std::string generated_user_id(std::int64_t n) { return fmt::format("user-{:06}", n); }

Status generate_vouchers(const GeneratorOptions& options, const TextSink& sink) {
  SLUICE_TRY(check(options));
  return write_all(
      "id,name,region,from,to,value_minor,currency,stock,user_quota,day_quota,budget_minor\n",
      options.vouchers, sink,
      [&](std::string& out, std::int64_t n) { out += voucher_line(options, n); });
}

Status generate_codes(const GeneratorOptions& options, const TextSink& sink) {
  SLUICE_TRY(check(options));
  return write_all("voucher,code\n", options.vouchers * options.codes_per_voucher, sink,
                   [&](std::string& out, std::int64_t n) {
                     const std::int64_t voucher = n / options.codes_per_voucher;
                     out += generated_voucher_id(voucher);
                     out += ',';
                     out += code_text(options.seed, voucher, n % options.codes_per_voucher);
                     out += '\n';
                   });
}

Status generate_users(const GeneratorOptions& options, const TextSink& sink) {
  SLUICE_TRY(check(options));
  return write_all("id,region\n", options.users, sink, [&](std::string& out, std::int64_t n) {
    Numbers r(options.seed ^ (0xB000'0000'0000ull + static_cast<std::uint64_t>(n)));
    out += generated_user_id(n);
    out += ',';
    out += r.pick(kRegions).code;
    out += '\n';
  });
}

}  // namespace sluice::voucher
