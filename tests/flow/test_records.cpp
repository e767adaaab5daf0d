// FLOW-23: each record of the journal, byte by byte as docs/formats.md writes it down.
#include "flow/records.hpp"
#include "flow/sentences_fixture.hpp"

namespace sluice::flow {
namespace {

/// One of each, with every field set.
std::vector<Record> one_of_each() {
  Begun begun{.flow = "pay", .version = 3, .graph = 9, .ns = "app", .reference = "ref", .principal = "ann",
              .command = "order.pay", .correlation = "c-1", .trace = "00-ab", .request = "10 EUR", .scope = "s",
              .key_ttl_ms = 5, .key_token = 2, .audited = true};
  for (std::size_t i = 0; i < sizeof begun.fingerprint.bytes; ++i) reinterpret_cast<char*>(&begun.fingerprint.bytes)[i] = static_cast<char>(i);
  Paused paused;
  paused.token = "t.0";
  paused.until_ms = 1000;
  paused.at.group = 1;
  paused.at.position = 2;
  paused.at.pending = {3, 4};
  paused.at.routed = {5};
  paused.at.steps = {{.stage = 6, .prepared = true, .joined = true}};
  paused.bag = {{"k", "v"}};
  paused.response = "r";
  paused.draft = "d";
  return {begun,
          Intent{.step = 1, .stage = 2, .bag = {{"hold", "h1"}}},
          Decided{Decision::commit, "why", "reply", {{.stage = 1, .external = true, .joined = true, .finished = true, .unsure = true}}, {{"k", "v"}}},
          Finished{300},
          Ended{EndKind::aborted},
          Settled{EndKind::committed, "ops", "by phone"},
          paused,
          Woken{"yes"}};
}

// What is written today must be read by every later version: whoever changes these bytes adds a tag or a format.
const std::vector<std::string> kWritten{
    // begun: flow, version, graph, namespace, reference, principal, command, correlation, trace
    "01" "03706179" "03" "0900000000000000" "03617070" "03726566" "03616e6e" "096f726465722e706179" "03632d31" "0530302d6162"
    // request, scope, fingerprint, ttl, token, audited
    "06313020455552" "0173" "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" "0a" "02" "01",
    "02" "01" "02" "0104686f6c64026831",                               // intent: step, stage, bag
    "03" "01" "03776879" "057265706c79" "01011d" "01016b0176",         // decided: decision, cause, reply, steps, bag
    "04" "ac02",                                                       // finished: step
    "05" "02",                                                         // ended: kind
    "06" "01" "036f7073" "086279" "2070686f6e65",                      // settled: kind, by, reason
    "07" "03742e30" "d00f" "01" "02" "020304" "0105" "010606"          // paused: token, until, group, position, pending, routed, steps
    "01016b0176" "0172" "0164",                                        // bag, response, draft
    "08" "03796573",                                                   // woken: payload
};

TEST(Records, FLOW_23_each_record_is_written_as_its_document_says) {
  const auto records = one_of_each();
  ASSERT_EQ(records.size(), std::variant_size_v<Record>) << "a new record belongs in here and in docs/formats.md";
  for (std::size_t i = 0; i < records.size(); ++i) {
    const Bytes row = encode_row(records[i]);
    EXPECT_EQ(row[0], 1) << "its format";
    EXPECT_EQ(to_hex(ByteView(row).substr(5)), kWritten[i]) << "record " << i;
    const auto back = decode_row(row);
    ASSERT_TRUE(back) << back.error().to_string();
    ASSERT_EQ(back->size(), 1u);
    EXPECT_EQ(back->front().index(), i);
    EXPECT_EQ(encode_row(back->front()), row) << "record " << i << " is not read as it was written";
  }
  EXPECT_EQ(to_hex(encode_row(Ended{EndKind::committed})), "017a0d225e0501") << "the worked example of docs/formats.md";
}

TEST(Records, FLOW_23_rows_round_trip_and_damage_is_found) {
  const auto records = one_of_each();
  const Bytes row = encode_row({&records[0], &records[2]});
  const auto back = decode_row(row);
  ASSERT_TRUE(back) << back.error().to_string();
  ASSERT_EQ(back->size(), 2u);
  EXPECT_EQ(std::get<Begun>((*back)[0]).key_token, 2u);
  EXPECT_EQ(std::get<Decided>((*back)[1]).bag[0].second, "v");
  sim::SimRandom random(3);
  for (const auto& record : records) {
    const Bytes whole = encode_row(record);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      Bytes damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ static_cast<char>(1 + random.below(255)));
      EXPECT_FALSE(decode_row(damaged)) << "byte " << i;
      EXPECT_FALSE(decode_row(ByteView(whole).substr(0, i))) << "cut at " << i;
    }
  }
}

/// A row with this body, and a checksum that is right.
Bytes row_of(char format, Bytes body) {
  Bytes row(1, format);
  const std::uint32_t crc = crc32c(body);
  row.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  return row + body;
}

TEST(Records, FLOW_23_another_format_and_an_unknown_record_are_told_and_not_guessed) {
  ASSERT_TRUE(decode_row(row_of(1, Bytes("\x05\x01", 2))));
  const auto newer = decode_row(row_of(2, Bytes("\x05\x01", 2)));
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().kind(), FailureKind::corrupt);
  EXPECT_NE(newer.error().detail().find("newer version"), std::string_view::npos);
  const auto unknown = decode_row(row_of(1, Bytes("\x09", 1)));
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().detail().find("unknown record tag 9"), std::string_view::npos);
  EXPECT_FALSE(decode_row(row_of(1, Bytes("\x04", 1)))) << "a record cut in the middle, under a good checksum";
}

// What a stage sees of itself, live and after the crash: the token is its idempotency key outside.
TEST_F(Sentences, FLOW_23_FLOW_16_a_stage_sees_the_same_token_after_a_crash_and_its_attempts_anew) {
  std::vector<std::string> tokens;
  std::vector<std::uint32_t> attempts;
  const auto stage = [&] {
    Phases made;
    made.prepare = [&](Exchange& x) -> Result<Vote> {
      tokens.push_back(x.token());
      return Vote();
    };
    made.commit = [&](Exchange& x) -> Status {
      tokens.push_back(x.token());
      attempts.push_back(x.attempt());
      return x.attempt() < 3 ? fail(FailureKind::unavailable, "down", "") : Status();
    };
    made.abort = [&](Exchange& x, bool) -> Status {
      tokens.push_back(x.token());
      attempts.push_back(x.attempt());
      return x.attempt() < 3 ? fail(FailureKind::unavailable, "down", "") : Status();
    };
    return phases("pay", Effect::external, std::move(made));
  };
  for (const int dies_at : {0, 1, 2}) {  // intent of the first, of the second, decision
    SCOPED_TRACE(dies_at);
    tokens.clear();
    attempts.clear();
    OddStore dying(*store);
    dying.at = dies_at;
    dying.applies = dying.dies = true;
    const auto shape = [&](Flow& flow) { flow.group("main", {func("check", [](Exchange&) { return Vote(); }), stage(), record.stage("b", Effect::external)}); };
    Flow doomed("f", {.store = &dying});
    shape(doomed);
    auto x = exchange();
    start(doomed, x);
    settle_lane();
    Flow next("f", {.store = store.get()});
    shape(next);
    recover(next);
    EXPECT_EQ(tokens, std::vector<std::string>(tokens.size(), to_string(x->id()) + ".1"));
    EXPECT_EQ(tokens.size(), dies_at == 0 ? 3u : 4u);
    EXPECT_EQ(attempts, (std::vector<std::uint32_t>{1, 2, 3}));
    EXPECT_EQ(open(), 0u);
  }
}

}  // namespace
}  // namespace sluice::flow
