// What the crash campaign runs: a transfer between accounts that also reserves with an outside
// partner, whose memory outlives the server's process.
#pragma once
#include <string>

#include "sluice/server/app.hpp"

namespace sluice::crash {

inline constexpr int kAccounts = 64;
inline constexpr std::int64_t kOpening = 3000;  ///< on each account

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

/// Command crash.transfer {"from": n, "to": n}: refused "insufficient" when `from` is empty.
std::unique_ptr<server::App> make_app(const std::string& partner_path);

/// The same flow over a given store, for stranding exchanges; with `hang` the partner's answer to the
/// reservation never comes.
std::unique_ptr<flow::Flow> make_transfer(store::Store& store, FilePartner& partner, bool hang);

}  // namespace sluice::crash
