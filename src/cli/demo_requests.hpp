// What the demonstration sends: requests as bytes, and hostile ones with the answers they must get.
#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <string>

namespace sluice::cli {

inline std::string demo_request(const std::string& command, const std::string& key, const std::string& body, const std::string& token) {
  std::string text = "POST /v1/commands/" + command + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  if (!token.empty()) text += "Authorization: Bearer " + token + "\r\n";
  if (!key.empty()) text += "Idempotency-Key: " + key + "\r\n";
  return text + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

enum class Hostile { malformed, wrong_token, unknown_command, bad_key, no_key };
struct HostileKind {
  Hostile kind;
  const char* what;
  int expected;
};
inline constexpr HostileKind kHostile[] = {
    {Hostile::malformed, "malformed JSON", 400},     {Hostile::wrong_token, "wrong token", 401},
    {Hostile::unknown_command, "unknown command", 404}, {Hostile::bad_key, "key of 300 bytes", 400},
    {Hostile::no_key, "no key", 400},
};

/// `n` tells it from others of its kind.
inline std::string hostile_request(Hostile kind, std::uint64_t n, const std::string& token) {
  const std::string body = R"({"collection":"demo","key":"stolen","delta":1})", key = fmt::format("bad-{}", n);
  switch (kind) {
    case Hostile::malformed: return demo_request("kv.add", key, R"({"collection":)", token);
    case Hostile::wrong_token: return demo_request("kv.add", key, body, "not-a-token");
    case Hostile::unknown_command: return demo_request("kv.steal", key, body, token);
    case Hostile::bad_key: return demo_request("kv.add", std::string(300, 'k'), body, token);
    default: return demo_request("kv.add", "", body, token);
  }
}

}  // namespace sluice::cli
