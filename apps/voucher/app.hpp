// The voucher distribution service as an application of a Sluice server.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/voucher/downstream.hpp"
#include "sluice/server/app.hpp"

namespace sluice::voucher {

struct VoucherOptions {
  /// gRPC targets ("127.0.0.1:9101"); they win over the configured channels "codes" and "users". With
  /// neither, codes, or users, are those of the own store.
  std::string code_service, user_service;
  std::string code_token, user_token;  ///< of each
  std::string service_ca;     ///< PEM file: the services speak TLS; empty: they do not
  DownstreamOptions downstream;
  /// Batches of others are refused; empty: each region is served. Each that is asked for has protectors of its own.
  std::vector<std::string> regions;
  /// Items per second of one caller, over all regions, with a burst of one batch at least; 0: no limit.
  std::uint64_t caller_rate = 0;
  std::uint64_t caller_region_rate = 0;  ///< of one caller in one region, in the same way
  milliseconds requests_kept = std::chrono::hours(24);  ///< a batch's request id, and what its items got
};

std::unique_ptr<server::App> make_app(VoucherOptions options = {});

}  // namespace sluice::voucher
