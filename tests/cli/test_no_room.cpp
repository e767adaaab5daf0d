// Commands whose output does not fit where it goes: /dev/full takes nothing, a limit on files takes little.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

class NoRoom : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  Ran sluice(const Arguments& arguments) { return run(folder.path(), arguments); }

  /// Standard output is /dev/full.
  Ran into_nothing(const Arguments& arguments) {
    const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    const std::string err_path = folder.file(".err");
    const int err = open(err_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    const pid_t pid = spawn(folder.path(), arguments, {}, full, err);
    close(full);
    close(err);
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), {}, read_file(err_path)};
  }
  /// The advice's command, with what it says to add.
  Ran renew(const Ran& failed) {
    const std::string begin = "sluice token create till --replaces ";
    const auto at = failed.err.find(begin);
    EXPECT_NE(at, std::string::npos) << failed.err;
    if (at == std::string::npos) return {};
    return sluice({"token", "create", "till", "--grant", "default:kv.*", "--json", "--replaces", failed.err.substr(at + begin.size(), 16)});
  }
};

TEST_F(NoRoom, CONSOLE_4_a_token_nobody_has_seen_is_revoked_and_its_name_is_renewed_as_is_said) {
  const Ran failed = into_nothing({"token", "create", "till", "--grant", "default:kv.*"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("is revoked"));
  EXPECT_EQ(sluice({"token", "create", "till", "--grant", "default:kv.*"}).status, 1) << "the name is taken";
  const Ran made = renew(failed);
  ASSERT_EQ(made.status, 0) << made.err;

  // The one that was to be replaced has ended with the failed command.
  const std::string old = nlohmann::json::parse(made.out)["id"];
  const Ran again = into_nothing({"token", "create", "till", "--grant", "default:kv.*", "--replaces", old});
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("the one it replaced, " + old + ", has ended with it"));
  EXPECT_EQ(renew(again).status, 0);
}

TEST_F(NoRoom, VOUCHER_6_a_catalogue_that_does_not_fit_is_told) {
  ASSERT_EQ(mkdir(folder.file("catalogue").c_str(), 0700), 0);
  ASSERT_EQ(symlink("/dev/full", folder.file("catalogue/codes.csv").c_str()), 0);
  const Ran generated = sluice({"voucher", "generate", "catalogue", "--vouchers", "10", "--codes", "5"});
  EXPECT_EQ(generated.status, 1);
  EXPECT_THAT(generated.err, HasSubstr("writing catalogue/codes.csv: No space left on device"));
}

TEST_F(NoRoom, a_bench_that_says_wrong_ends_with_1) {
  // Inherited by the process: its database may not grow past this, and it is told so instead of killed.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit little = before;
  little.rlim_cur = 1 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  const auto handled = signal(SIGXFSZ, SIG_IGN);
  const Ran bench = sluice({"bench", "growth", "--up-to", "1000", "--rounds", "1", "--seconds", "0.5", "--directory", folder.path()});
  signal(SIGXFSZ, handled);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(bench.out, HasSubstr("WRONG: "));
  EXPECT_EQ(bench.status, 1) << bench.err;
}

}  // namespace
}  // namespace sluice::cli_test
