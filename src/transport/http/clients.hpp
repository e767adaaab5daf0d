// How many connections each client address has open.
#pragma once
#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

namespace sluice::transport {

/// Why a connection is told to go; none: it is served.
enum class Refusal : std::uint8_t { none, full, client_full };

/// Thread-safe. Bounded by the connections that are open.
class ClientCounts {
 public:
  /// Who counts as one client. A host of IPv6 has a network of 64 bits to itself, so addresses
  /// within it would be no bound at all.
  using Key = std::pair<bool, std::uint64_t>;
  static Key key_of(const boost::asio::ip::address& address) {
    namespace ip = boost::asio::ip;
    if (address.is_v4()) return {false, address.to_v4().to_uint()};
    const auto v6 = address.to_v6();
    if (v6.is_v4_mapped()) return {false, ip::make_address_v4(ip::v4_mapped, v6).to_uint()};
    const auto bytes = v6.to_bytes();
    std::uint64_t network = 0;
    for (int i = 0; i < 8; ++i) network = network << 8 | bytes[static_cast<std::size_t>(i)];
    return {true, network};
  }
  /// False, and nothing is counted, when it has `limit` already.
  bool add(const Key& key, std::size_t limit) {
    const std::lock_guard lock(mutex_);
    auto& count = counts_[key];
    if (count >= limit) return false;
    ++count;
    return true;
  }
  void remove(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = counts_.find(key);
    if (found != counts_.end() && --found->second == 0) counts_.erase(found);
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::size_t> counts_;
};

}  // namespace sluice::transport
