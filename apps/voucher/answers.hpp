// What the code and the user service answer, and whether it answers the question.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/voucher/code_supply.hpp"
#include "sluice/base/bytes.hpp"
#include "sluice/rpc/client.hpp"

namespace sluice::voucher {

/// decode() gives null for what is none.
struct CodesAnswer {
  milliseconds lease{0};
  std::set<std::string> named;                  ///< every voucher the answer speaks of
  std::set<std::string> none;                   ///< not a code is left
  std::map<std::string, milliseconds> leased;   ///< what is left is leased; the first lease ends then
  std::map<std::string, std::string> universal;
  std::vector<LeasedSegment> segments;

  static std::shared_ptr<const void> decode(ByteView body);

 private:
  bool read(ByteView body);
};

/// In the order of the question.
struct UsersAnswer {
  std::vector<bool> exists;
  static std::shared_ptr<const void> decode(ByteView body);
};

/// The innermost interceptor of their clients: an answer to another question is a failure of the callee, and
/// the guards around it count it so.
std::shared_ptr<rpc::Interceptor> check_answers();

}  // namespace sluice::voucher
