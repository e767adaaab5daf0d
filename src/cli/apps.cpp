// The applications that the sluice command can run, and their options.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apps/voucher/app.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/faults.hpp"
#include "apps/voucher/user_service.hpp"
#include "cli/commands.hpp"
#include "cli/demo_app.hpp"
#include "cli/options.hpp"

namespace sluice::cli {
namespace {

// A file's name, or the plan itself.
voucher::FaultPlan read_plan(const std::string& given) {
  if (given.empty()) return {};
  std::string text = given;
  const bool is_file = given.front() != '{';
  if (is_file) {
    std::error_code none;
    std::ifstream file(given, std::ios::binary);
    if (!file || !std::filesystem::is_regular_file(given, none))
      die(Failure(FailureKind::invalid_argument, "fault_plan", "--fault-plan: cannot read " + given + ": expected a file of JSON, or the JSON itself"));
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  auto plan = voucher::FaultPlan::parse(text);
  if (!plan) die(plan.error().at("--fault-plan" + (is_file ? " " + given : std::string())));
  return *std::move(plan);
}

// As the server's own addresses are: a name or number, and a port; names are not looked up here.
bool is_target(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  std::uint32_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + colon + 1, end, port);
  return error == std::errc() && at == end && port >= 1 && port <= 65'535 &&
         std::ranges::none_of(text, [](unsigned char c) { return c <= ' ' || c == 0x7f; });
}

// By commas; what stands between two is a name, also if it is empty.
std::vector<std::string> split(const std::string& names) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (auto comma = names.find(','); comma != std::string::npos; comma = names.find(',', begin = comma + 1))
    parts.push_back(names.substr(begin, comma - begin));
  parts.push_back(names.substr(begin));
  return parts;
}

}  // namespace

void add_app_options(CLI::App& command, AppOptions& options) {
  from_environment(command,
                   command.add_option("--apps", options.apps, "voucher (default), codes, users, demo (what `sluice demo` asks): one or several, by commas")
                       ->delimiter(',')
                       ->check(CLI::IsMember({"voucher", "codes", "users", "demo"})),
                   "SLUICE_APPS");
  const auto add = [&](const char* name, std::string& value, const char* what, const char* variable) {
    return from_environment(command, command.add_option(name, value, what), variable);
  };
  add("--code-service", options.code_service,
      "voucher: HOST:PORT of a gRPC door with --apps codes; default: the own store", "SLUICE_CODE_SERVICE");
  add("--user-service", options.user_service,
      "voucher: HOST:PORT of a gRPC door with --apps users; default: the own store", "SLUICE_USER_SERVICE");
  add("--code-token", options.code_token, "voucher: token for the code service", "SLUICE_CODE_TOKEN");
  add("--user-token", options.user_token, "voucher: token for the user service", "SLUICE_USER_TOKEN");
  add("--service-ca", options.service_ca, "voucher: PEM file of their authority; they speak TLS then",
      "SLUICE_SERVICE_CA");
  add("--owner", options.owner, "voucher: under which name codes are leased; default: distribution-STORE-NODE, by the store's own name and the number of the node",
      "SLUICE_OWNER");
  command.add_option("--downstream-timeout-ms", options.downstream_timeout_ms, "voucher: for one question, retries included")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  command.add_option("--segment-codes", options.segment_codes, "voucher: codes leased at once, per voucher")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command.add_flag("--bypass-code-cache", options.bypass_code_cache, "voucher: ask the code service for each code when it is wanted, for fresh ones; no segments are kept at hand");
  command.add_option("--caller-rate", options.caller_rate, "voucher: items per second of one caller, over all regions; 0: no limit")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  command.add_option("--caller-region-rate", options.caller_region_rate, "voucher: items per second of one caller in one region, within that; 0: no limit")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  command.add_option("--keep-requests-hours", options.keep_requests_hours, "voucher: how long a batch's request id is remembered, with what its items got")
      ->check(CLI::Range(1, 8760))
      ->capture_default_str();
  from_environment(command,
                   // Split by us: CLI11 would leave out an empty name, which is a slip.
                   command.add_option("--regions", options.regions, "voucher: the regions served, by commas; default: each that is asked for"),
                   "SLUICE_REGIONS");
  command.add_option("--fault-plan", options.fault_plan, "codes, users: JSON or a file with it: faults on purpose");
}

std::vector<std::unique_ptr<server::App>> linked_apps(const AppOptions& options) {
  const auto runs = [&](std::string_view name) { return std::ranges::find(options.apps, name) != options.apps.end(); };
  const auto refuse = [](const char* option, const char* expected) {
    die(Failure(FailureKind::invalid_argument, "unused_option", fmt::format("{}: nothing here would use it; expected {}", option, expected)));
  };
  if (!options.fault_plan.empty() && !runs("codes") && !runs("users")) refuse("--fault-plan", "--apps codes or users");
  if (!runs("voucher")) {
    if (!options.code_service.empty()) refuse("--code-service", "voucher among --apps");
    if (!options.user_service.empty()) refuse("--user-service", "voucher among --apps");
    if (!options.regions.empty()) refuse("--regions", "voucher among --apps");
  }
  for (const auto* service : {&options.code_service, &options.user_service})
    if (!service->empty() && !is_target(*service))
      die(Failure(FailureKind::invalid_argument, "bad_target",
                  fmt::format("{}: expected HOST:PORT with a port from 1 to 65535, got '{}'", service == &options.code_service ? "--code-service" : "--user-service", *service)));
  const voucher::FaultPlan plan = read_plan(options.fault_plan);
  std::vector<std::unique_ptr<server::App>> apps;
  for (const auto& name : options.apps) {
    if (name == "codes") apps.push_back(voucher::make_code_service({.faults = plan}));
    if (name == "demo") apps.push_back(make_demo_app());
    if (name == "users") apps.push_back(voucher::make_user_service(plan));
    if (name != "voucher") continue;
    voucher::VoucherOptions chosen;
    chosen.code_service = options.code_service;
    chosen.user_service = options.user_service;
    chosen.code_token = options.code_token;
    chosen.user_token = options.user_token;
    chosen.service_ca = options.service_ca;
    chosen.caller_rate = options.caller_rate;
    chosen.caller_region_rate = options.caller_region_rate;
    chosen.requests_kept = std::chrono::hours(options.keep_requests_hours);
    for (const auto& several : options.regions)
      for (auto& region : split(several)) chosen.regions.push_back(std::move(region));
    chosen.downstream.segment_codes = options.segment_codes;
    chosen.downstream.bypass_cache = options.bypass_code_cache;
    chosen.downstream.owner = options.owner;
    chosen.downstream.timeout = milliseconds(options.downstream_timeout_ms);
    apps.push_back(voucher::make_app(std::move(chosen)));
  }
  return apps;
}

}  // namespace sluice::cli
