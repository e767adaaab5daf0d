// Key headers, fingerprints, derived keys and the simple interface.
#include <set>

#include "idempotency/keys_fixture.hpp"
#include "sluice/idempotency/fingerprint.hpp"
#include "sluice/idempotency/key_header.hpp"
#include "sluice/idempotency/reply_store.hpp"

namespace sluice::idempotency {
namespace {

TEST(KeyHeader, IDEM_6_takes_the_string_and_the_bare_token) {
  EXPECT_EQ(parse_key_header("\"8e03978e-40d5\"").value(), "8e03978e-40d5");
  EXPECT_EQ(parse_key_header("8e03978e-40d5").value(), "8e03978e-40d5");
  EXPECT_EQ(parse_key_header("  \"a b, c\" ").value(), "a b, c");
  EXPECT_EQ(parse_key_header("\"a\\\"b\\\\c\"").value(), "a\"b\\c");
  EXPECT_EQ(parse_key_header("\"k\"; p=1").value(), "k");
  EXPECT_EQ(parse_key_header(std::string(255, 'k')).value().size(), 255u);
}

TEST(KeyHeader, IDEM_6_refuses_what_is_malformed) {
  const std::string long_quoted = "\"" + std::string(256, 'k') + "\"";
  const std::vector<std::string> bad{"",          "  ",        "\"\"",
                                     "\"open",    "\"a\" b",   "\"a\\n\"",
                                     "a b",       "a,b",       "a\"b",
                                     "k\xC3\xA9", "\"a\tb\"",  std::string("a\0b", 3),
                                     "\"\\",      long_quoted, std::string(256, 'k')};
  for (const auto& value : bad) {
    const auto key = parse_key_header(value);
    ASSERT_FALSE(key) << value;
    EXPECT_EQ(key.error().kind(), FailureKind::invalid_argument);
    EXPECT_EQ(key.error().code(), "bad_idempotency_key");
  }
}

TEST(Fingerprint, IDEM_5_covers_command_version_and_projection_apart) {
  const std::set<std::string> prints{
      to_hex(fingerprint("pay", 1, "x").view()), to_hex(fingerprint("pay", 2, "x").view()),
      to_hex(fingerprint("payx", 1, "").view()), to_hex(fingerprint("pa", 1, "yx").view()),
      to_hex(fingerprint("pay", 1, "y").view())};
  EXPECT_EQ(prints.size(), 5u);
  EXPECT_EQ(fingerprint("pay", 1, "x"), fingerprint("pay", 1, "x"));
}

TEST(DerivedKey, IDEM_12_is_stable_and_differs_by_exchange_stage_and_ordinal) {
  const auto key = derived_key({7}, "charge", 0);
  EXPECT_EQ(key, derived_key({7}, "charge", 0));
  EXPECT_EQ(key.size(), 46u);
  EXPECT_EQ(parse_key_header(key).value(), key);
  const std::set<std::string> keys{key, derived_key({8}, "charge", 0),
                                   derived_key({7}, "charge", 1), derived_key({7}, "refund", 0)};
  EXPECT_EQ(keys.size(), 4u);
}

SLUICE_KEYS_SUITE(ReplyStore);

TEST_P(ReplyStore, IDEM_2_lookup_and_store_by_key_and_identity) {
  const Namespace app("app");
  const Identity ann{app, "ann", "pay", 1};
  const Identity bob{app, "bob", "pay", 1};
  EXPECT_EQ(lookup(*keys, "k", ann), nullptr);
  const ReplyToStore reply{"the reply", print_of("p"), {5}};
  ASSERT_TRUE(idempotency::store(*keys, store.get(), "k", ann, reply));
  EXPECT_EQ(lookup(*keys, "k", ann)->reply, "the reply");
  EXPECT_EQ(lookup(*keys, "k", bob), nullptr);
  EXPECT_TRUE(idempotency::store(*keys, store.get(), "k", ann, {"later", print_of("p"), {6}}));
  EXPECT_EQ(lookup(*keys, "k", ann)->reply, "the reply");
  const auto other = idempotency::store(*keys, store.get(), "k", ann, {"r", print_of("q"), {7}});
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().kind(), FailureKind::fingerprint_mismatch);
  turn(std::chrono::hours(25));
  EXPECT_EQ(lookup(*keys, "k", ann), nullptr);
}

}  // namespace
}  // namespace sluice::idempotency
