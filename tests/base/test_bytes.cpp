// Property tests under fixed seeds: what was written reads back; nothing a reader is fed makes it
// read outside its input, loop, or accept two spellings of one value.
#include <gtest/gtest.h>

#include "sim/random.hpp"
#include "sluice/base/bytes.hpp"

namespace sluice {
namespace {

std::uint64_t number_of_any_size(sim::SimRandom& random) {
  return random.next() >> random.below(64);
}

TEST(Bytes, WhatIsWrittenReadsBack) {
  sim::SimRandom random(1);
  for (int round = 0; round < 20'000; ++round) {
    Bytes out;
    ByteWriter writer(out);
    const std::uint64_t a = number_of_any_size(random);
    const auto b =
        static_cast<std::int64_t>(number_of_any_size(random)) * (random.one_in(2) ? 1 : -1);
    const Bytes text(random.below(40), static_cast<char>(random.next()));
    writer.varint(a);
    writer.signed_varint(b);
    writer.bytes(text);
    writer.u8(7);
    writer.u32(static_cast<std::uint32_t>(a));
    writer.u64(a);
    writer.raw("end");
    ByteReader reader(out);
    ASSERT_EQ(reader.varint(), a);
    ASSERT_EQ(reader.signed_varint(), b);
    ASSERT_EQ(reader.bytes(), text);
    ASSERT_EQ(reader.u8(), 7);
    ASSERT_EQ(reader.u32(), static_cast<std::uint32_t>(a));
    ASSERT_EQ(reader.u64(), a);
    ASSERT_EQ(reader.raw(3), "end");
    ASSERT_TRUE(reader.at_end());
    ASSERT_EQ(reader.u8(), 0);
    ASSERT_FALSE(reader.ok());
  }
}

TEST(Bytes, ExtremesOfSignedVarintsRoundTrip) {
  for (const std::int64_t v : {std::int64_t{0}, std::int64_t{-1}, INT64_MAX, INT64_MIN}) {
    Bytes out;
    ByteWriter(out).signed_varint(v);
    ByteReader reader(out);
    EXPECT_EQ(reader.signed_varint(), v);
    EXPECT_TRUE(reader.at_end());
  }
}

TEST(Bytes, OverlongAndOverflowingVarintsAreRefused) {
  using namespace std::string_literals;
  const Bytes nines(9, '\xff');
  for (const Bytes& bad : {"\x80\x00"s, "\xff\x80\x00"s, nines + '\x02', nines + '\x7f',
                           nines + '\xff' + '\x01', "\x80"s, ""s}) {
    ByteReader reader(bad);
    EXPECT_EQ(reader.varint(), 0u);
    EXPECT_FALSE(reader.ok());
  }
  ByteReader largest(nines + '\x01');
  EXPECT_TRUE(largest.ok());
}

TEST(Bytes, HostileInputNeverReadsOutsideOrTwice) {
  sim::SimRandom random(2);
  for (int round = 0; round < 50'000; ++round) {
    // Exactly sized heap memory, so that the address sanitizer sees one byte too many.
    const std::size_t size = random.below(24);
    const auto memory = std::make_unique<char[]>(size);
    for (std::size_t i = 0; i < size; ++i)
      memory[i] = static_cast<char>(random.one_in(3) ? 0xFF : random.next());
    ByteReader reader(ByteView(memory.get(), size));
    std::size_t seen = 0;
    for (int step = 0; step < 30 && reader.ok(); ++step) {
      switch (random.below(6)) {
        case 0:
          reader.u8();
          break;
        case 1:
          reader.u32();
          break;
        case 2:
          reader.u64();
          break;
        case 3:
          reader.varint();
          break;
        case 4:
          for (const char c : reader.bytes()) seen += static_cast<unsigned char>(c);
          break;
        default:
          for (const char c : reader.raw(random.next())) seen += static_cast<unsigned char>(c);
      }
      ASSERT_LE(reader.offset(), size);
    }
    if (seen == 1) RecordProperty("seen", "one");  // keeps the reads alive
  }
}

TEST(Bytes, Crc32cMatchesThePublishedVectors) {
  // RFC 3720, B.4.
  EXPECT_EQ(crc32c(Bytes(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(Bytes(32, '\xff')), 0x62A8AB43u);
  Bytes rising;
  for (int i = 0; i < 32; ++i) rising.push_back(static_cast<char>(i));
  EXPECT_EQ(crc32c(rising), 0x46DD794Eu);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(Bytes, Hash64IsStableAndSpreads) {
  EXPECT_EQ(hash64("sluice"), hash64("sluice"));
  EXPECT_NE(hash64("sluice"), hash64("sluice", 1));
  EXPECT_NE(hash64(Bytes(8, '\0')), hash64(Bytes(9, '\0')));
  std::array<int, 16> buckets{};
  for (int i = 0; i < 16'000; ++i) ++buckets[hash64("key" + std::to_string(i)) & 15];
  for (const int count : buckets) EXPECT_NEAR(count, 1000, 200);
}

TEST(Bytes, HexRoundTripsAndRefusesTheRest) {
  sim::SimRandom random(3);
  for (int i = 0; i < 100; ++i) {
    Bytes bytes(random.below(20), '\0');
    for (char& c : bytes) c = static_cast<char>(random.next());
    EXPECT_EQ(from_hex(to_hex(bytes)), bytes);
  }
  EXPECT_EQ(from_hex("FF00"), Bytes("\xff\0", 2));
  for (const char* bad : {"0", "0g", "0x", "  "}) EXPECT_FALSE(from_hex(bad)) << bad;
}

TEST(Bytes, Sha256MatchesThePublishedVector) {
  EXPECT_EQ(to_hex(sha256("abc").view()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace sluice
