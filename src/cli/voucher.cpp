// sluice voucher: the catalogue of the voucher application, into the store of a stopped server.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/voucher/generator.hpp"
#include "apps/voucher/importer.hpp"
#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

struct ImportArguments {
  std::string what, file, config, store;
  bool json = false, shadow = false;
};

void import(const ImportArguments& arguments) {
  const auto config = load_config_or_die(arguments.config, environment_with_store(arguments.store));
  RealClock clock;
  RealRandom random;
  RealExecutor executor(clock);
  RealFiles files;
  auto file = files.open(arguments.file, OpenMode::read);
  if (!file)
    die(Failure(FailureKind::invalid_argument, "no_file",
                "cannot read " + arguments.file + ": " + std::string(file.error().detail())));
  auto store = server::open_store(config, clock, random, executor);
  if (!store) die(store.error());
  voucher::ImportOptions options;
  options.batch = 2000;
  if (arguments.shadow) options.ns = "voucher~shadow";
  if (!arguments.json) options.progress = voucher::terminal_progress(clock);
  const auto run = arguments.what == "vouchers" ? voucher::import_vouchers
                   : arguments.what == "codes"  ? voucher::import_codes
                   : arguments.what == "universal-codes" ? voucher::import_universal_codes
                                                : voucher::import_users;
  const auto done = run(**store, voucher::read_from(**file), arguments.file, options);
  (*store)->close();
  if (!arguments.json) fmt::print(stderr, "\n");
  if (!done) {
    fmt::print(stderr, "sluice: {}\n  What was imported before stays; mend the file and run the same command again.\n",
               done.error().to_string());
    throw CLI::RuntimeError(1);
  }
  if (arguments.json)
    fmt::print(R"({{"file":{},"rows":{},"imported":{},"recognised":{}}})" "\n", nlohmann::json(arguments.file).dump(),
               done->rows, done->imported, done->recognised);
  else
    fmt::print("{} rows of {}: {} new, {} there already{}.\n", done->rows, arguments.file, done->imported, done->recognised,
               done->imported == 0 ? "; nothing was changed" : "");
}

struct GenerateArguments : voucher::GeneratorOptions {
  std::string folder;
  bool force = false;
};

std::unexpected<Failure> refused(const std::string& path) {
  return fail(FailureKind::unavailable, "cannot_write",
              "writing " + path + ": " + std::error_code(errno, std::generic_category()).message() +
                  "; make room, or name a folder that may be written, and run the same command again");
}

void generate(const GenerateArguments& arguments) {
  std::error_code error;
  std::filesystem::create_directories(arguments.folder, error);
  const struct {
    const char* file;
    Status (*write)(const voucher::GeneratorOptions&, const voucher::TextSink&);
  } parts[] = {{"vouchers.csv", voucher::generate_vouchers},
               {"codes.csv", voucher::generate_codes},
               {"users.csv", voucher::generate_users}};
  for (const auto& part : parts) {
    const std::string path = arguments.folder + "/" + part.file;
    if (!arguments.force && std::filesystem::is_regular_file(path, error))
      die(Failure(FailureKind::invalid_argument, "file_there",
                  path + " is there already, and nothing was written; name another folder, or overwrite it with --force"));
  }
  for (const auto& part : parts) {
    const std::string path = arguments.folder + "/" + part.file;
    std::ofstream out(path, std::ios::binary);
    const Status written = part.write(arguments, [&](std::string_view piece) -> Status {
      out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
      if (!out) return refused(path);
      return {};
    });
    if (!written) die(written.error());
    out.close();
    if (!out) die(refused(path).error());
    fmt::print("{}\n", path);
  }
}

}  // namespace

void add_voucher(CLI::App& app) {
  auto* voucher = app.add_subcommand("voucher", "The catalogue of the voucher application");
  voucher->require_subcommand(1);
  voucher->footer("Example: sluice voucher generate catalogue && sluice voucher import vouchers catalogue/vouchers.csv");
  auto arguments = std::make_shared<ImportArguments>();
  auto* importing = voucher->add_subcommand("import", "Imports a CSV file into the store of a stopped server");
  importing->add_option("what", arguments->what, "vouchers, codes (each goes to one user), universal-codes (one per voucher, for all) or users")
      ->required()
      ->check(CLI::IsMember({"vouchers", "codes", "universal-codes", "users"}));
  importing->add_option("file", arguments->file, "CSV with a header line")->required();
  add_config_option(*importing, arguments->config);
  importing->add_option("--store", arguments->store, "Path of the database; overrides the configuration");
  importing->add_flag("--shadow", arguments->shadow, "Into the namespace of shadow traffic");
  importing->add_flag("--json", arguments->json, "For programs; no progress");
  importing->footer("Rows that are there already are recognised: an import that was cut off is run again.\n"
                    "Examples:\n  sluice voucher import vouchers vouchers.csv\n  sluice voucher import codes codes.csv");
  importing->callback([arguments] { import(*arguments); });
  auto generating_options = std::make_shared<GenerateArguments>();
  auto* generating = voucher->add_subcommand("generate", "Writes a catalogue to try: vouchers, codes, users");
  generating->add_option("folder", generating_options->folder, "Where to")->required();
  generating->add_option("--seed", generating_options->seed, "The same seed writes the same files")->capture_default_str();
  generating->add_option("--vouchers", generating_options->vouchers, "How many")->capture_default_str();
  generating->add_option("--codes", generating_options->codes_per_voucher, "For each voucher")->capture_default_str();
  generating->add_option("--users", generating_options->users, "How many")->capture_default_str();
  generating->add_flag("--force", generating_options->force, "Overwrites the files that are there");
  generating->footer("Example: sluice voucher generate catalogue --vouchers 1000 --codes 100");
  generating->callback([generating_options] { generate(*generating_options); });
}

}  // namespace sluice::cli
