// What the crash campaign runs: a transfer between accounts that also reserves with an outside
// partner, whose memory outlives the server's process; and one within the store alone.
#pragma once
#include <atomic>
#include <string>

#include "sluice/server/app.hpp"

namespace sluice::crash {

inline constexpr int kAccounts = 64;
inline constexpr std::int64_t kOpening = 3;  ///< on each account: about a quarter of all transfers find one empty
/// Besides: what stranded transfers move, from the first of them to the second.
inline constexpr int kStrandedFrom = kAccounts, kStrandedTo = kAccounts + 1;

/// The other side of the transfer: a log of single-write lines "R|C|X token", which the page cache
/// keeps when this process is killed.
class FilePartner {
 public:
  explicit FilePartner(const std::string& path);
  ~FilePartner();
  FilePartner(const FilePartner&) = delete;
  FilePartner& operator=(const FilePartner&) = delete;
  Status note(char what, const std::string& token);

 private:
  int file_;
};

store::KvKey account(int number);

/// Commands crash.transfer {"from": n, "to": n}, with the partner, and crash.move, without: refused
/// "insufficient" when `from` is empty.
std::unique_ptr<server::App> make_app(const std::string& partner_path);

/// Where the partner's answer never comes, and how many wait for it there.
struct Hang {
  enum class At { never, reserving, committing } at = At::never;
  std::atomic<int>* waiting = nullptr;
};
/// The transfer over a given store, for stranding exchanges.
std::unique_ptr<flow::Flow> make_transfer(store::Store& store, FilePartner& partner, Hang hang = {});

}  // namespace sluice::crash
