// The voucher campaign of the demonstration: generated and imported into the database while no
// server has it, and audited when none has it any more.
#pragma once
#include <string>
#include <vector>

namespace sluice::cli {

/// Of the vouchers that campaign_request() asks for.
inline constexpr std::int64_t kHotVouchers = 20, kHotStock = 50;

/// Generates 1,000 vouchers with 100 codes each and 5,000 users, and imports them. The hot ones have
/// stock for half their codes, so that it is the stock that must hold. Empty: done; else what went wrong.
std::string prepare_campaign(const std::string& database);

/// A smaller one whose codes lie in another database: 40 vouchers, each with 3,000 codes.
std::string prepare_services(const std::string& shop, const std::string& codes, const std::string& users);

struct CampaignBooks {
  std::int64_t stock = 0;
  std::int64_t left = 0;
  std::int64_t issued = 0;
  std::uint64_t codes = 0;
  std::uint64_t sold_out = 0;  ///< vouchers with nothing left
  std::vector<std::string> wrong;  ///< each a sentence
};
/// `codes`: the database that holds the codes; empty: the same.
CampaignBooks audit_campaign(const std::string& database, const std::string& codes = {});

/// A batch of one item for a hot voucher; `n` chooses voucher and user.
std::string campaign_request(std::uint64_t id, std::uint64_t n);

}  // namespace sluice::cli
