// A question to the code service: voucher.code.batch_get_code_using_cache.
#pragma once
#include <string>
#include <vector>

#include "apps/voucher/segments.hpp"

namespace sluice::voucher {

struct CodeQuestion {
  Holder holder;
  std::vector<std::string> vouchers;
  std::int64_t count = 100;
  bool resume = false;
  bool bypass_cache = false;  ///< not what the holder has, nor what ran out, as long as there are codes that nobody had
  struct Finished {
    std::string voucher;
    std::int64_t first = 0;
    std::uint64_t token = 0;
  };
  std::vector<Finished> finished;

  /// Fails invalid_argument `bad_request`, naming the member, what was expected and what was found. A member that is not
  /// known is refused: a service that leaves it out of what it does would lease what was not asked for. So the code
  /// service is upgraded before those who ask it; whoever is older asks with fewer members.
  static Result<CodeQuestion> parse(ByteView payload);
};

}  // namespace sluice::voucher
