// Masking and logs: secrets never reach a line, lines cannot be forged, floods are bounded.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/mask.hpp"

namespace sluice {
namespace {

TEST(Mask, CardNumbersKeepSixAndFour) {
  EXPECT_EQ(mask_pan("4111111111111111"), "411111******1111");
  EXPECT_EQ(mask_pan("411111111111"), "***");
  EXPECT_EQ(mask_pan(""), "***");
}

TEST(Mask, NamesAreJudgedByTheirWords) {
  for (const char* name : {"password", "Password", "card_pin", "pin", "PIN", "apiKey", "api-key",
                           "accessToken", "x.authorization", "CVV2", "client_secret", "track2"})
    EXPECT_EQ(sensitivity_of(name), Sensitivity::secret) << name;
  for (const char* name : {"pan", "card_number", "cardNumber", "PAN"})
    EXPECT_EQ(sensitivity_of(name), Sensitivity::pan) << name;
  for (const char* name : {"spinning", "idempotency_key", "tracking", "panel", "number", "",
                           "tokenised", "passwordless_but_a_very_long_name_indeed"})
    EXPECT_EQ(sensitivity_of(name), Sensitivity::open) << name;
}

TEST(Mask, CardNumbersInFreeTextAreFoundAlsoWithBlanks) {
  EXPECT_EQ(mask_text("card 4111 1111 1111 1111 declined"), "card 4111 11** **** 1111 declined");
  EXPECT_EQ(mask_text("4111-1111-1111-1111"), "4111-11**-****-1111");
  EXPECT_EQ(mask_text("order 4111111111111112"), "order 4111111111111112") << "no Luhn, no card";
  EXPECT_EQ(mask_text("12345678901234567890123"), "12345678901234567890123");
}

TEST(Mask, JsonStaysJsonAndNestedSecretsGo) {
  const std::string masked = mask_json(
      R"({"user":"ann","password":"s3cret\"x","nested":{"apiKey":[1,{"a":"b"}],"pan":4111111111111111},)"
      R"("list":["4111111111111111",5],"n":4111111111111111,"pin" : 1234 ,"t":true})");
  const auto json = nlohmann::json::parse(masked);
  EXPECT_EQ(json["user"], "ann");
  EXPECT_EQ(json["password"], "***");
  EXPECT_EQ(json["nested"]["apiKey"], "***");
  EXPECT_EQ(json["nested"]["pan"], "411111******1111");
  EXPECT_EQ(json["list"][0], "411111******1111");
  EXPECT_EQ(json["list"][1], 5);
  EXPECT_EQ(json["n"], "411111******1111");
  EXPECT_EQ(json["pin"], "***");
  EXPECT_EQ(json["t"], true);
  EXPECT_EQ(masked.find("s3cret"), std::string::npos);
}

TEST(Mask, ANameSpelledWithEscapesIsStillSecret) {
  EXPECT_EQ(mask_json(R"({"p\u0061ssword":"x1"})").find("x1"), std::string::npos);
}

TEST(Mask, BrokenJsonHidesTheRestAndNeverReadsOutside) {
  for (const char* broken :
       {R"({"password":"hush)", R"({"password":{"a":"hush")", R"({"password": hush)",
        R"({"password":)", R"({"password)", "{\"", "\"\\"})
    EXPECT_EQ(mask_json(broken).find("hush"), std::string::npos) << broken;
  sim::SimRandom random(4);
  constexpr std::string_view kPieces = "{}[]\":,\\ u0041pin4";
  for (int round = 0; round < 50'000; ++round) {
    std::string text;
    for (std::uint64_t i = random.below(30); i > 0; --i)
      text.push_back(kPieces[random.below(kPieces.size())]);
    mask_json(text);
  }
}

struct Lines final : LogSink {
  void write(LogLevel, std::string_view line) override {
    if (broken) throw std::runtime_error("sink");
    lines.emplace_back(line);
  }
  std::vector<std::string> lines;
  bool broken = false;
};

TEST(Log, JsonLinesCarryEverythingAndParse) {
  sim::SimClock clock;
  const auto sink = std::make_shared<Lines>();
  const auto logger = make_logger(clock, sink, {.json = true});
  logger->warn("it \"broke\"\n",
               {{"count", 3},
                {"ratio", 0.5},
                {"nothing", std::numeric_limits<double>::infinity()},
                {"ok", false},
                {"password", "x"},
                {"pin", 1234},
                {"body", R"({"token":"y"})"}},
               "c-1");
  ASSERT_EQ(sink->lines.size(), 1u);
  const auto json = nlohmann::json::parse(sink->lines[0]);
  EXPECT_EQ(json["at"], "2026-01-01T00:00:01.000Z");
  EXPECT_EQ(json["level"], "warn");
  EXPECT_EQ(json["message"], "it \"broke\"\n");
  EXPECT_EQ(json["correlation"], "c-1");
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["ratio"], 0.5);
  EXPECT_EQ(json["nothing"], "inf");
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["password"], "***");
  EXPECT_EQ(json["pin"], "***");
  EXPECT_EQ(json["body"], R"({"token":"***"})");
}

TEST(Log, TextLinesCannotBeForged) {
  sim::SimClock clock;
  const auto sink = std::make_shared<Lines>();
  const auto logger = make_logger(clock, sink);
  logger->info("taken", {{"key", "a\n2026 error stolen"}, {"id", 7}, {"empty", ""}}, "x y");
  ASSERT_EQ(sink->lines.size(), 1u);
  EXPECT_EQ(sink->lines[0],
            "2026-01-01T00:00:01.000Z info  taken key=\"a\\n2026 error stolen\" id=7 empty=\"\" "
            "correlation=\"x y\"");
}

TEST(Log, AFloodIsBoundedPerMessageAndCounted) {
  sim::SimClock clock;
  const auto sink = std::make_shared<Lines>();
  const auto logger = make_logger(clock, sink, {.max_per_second = 3});
  for (int i = 0; i < 10; ++i) logger->error("flood");
  logger->error("another");
  EXPECT_EQ(sink->lines.size(), 4u);
  clock.advance(seconds(1));
  logger->error("flood");
  ASSERT_EQ(sink->lines.size(), 5u);
  EXPECT_NE(sink->lines[4].find("dropped_before=7"), std::string::npos);
}

TEST(Log, LevelsBelowAreSilentAndABrokenSinkThrowsNothing) {
  sim::SimClock clock;
  const auto sink = std::make_shared<Lines>();
  const auto logger = make_logger(clock, sink, {.level = LogLevel::warn});
  logger->info("quiet");
  EXPECT_TRUE(sink->lines.empty());
  sink->broken = true;
  logger->error("lost");
  null_logger().error("nowhere");
  EXPECT_FALSE(null_logger().enabled(LogLevel::error));
}

TEST(Log, LongValuesAreCut) {
  sim::SimClock clock;
  const auto sink = std::make_shared<Lines>();
  const auto logger = make_logger(clock, sink, {.max_value_bytes = 10});
  logger->info("m", {{"v", std::string(1000, 'x')}});
  EXPECT_TRUE(sink->lines[0].ends_with("v=xxxxxxxxxx..."));
}

}  // namespace
}  // namespace sluice
